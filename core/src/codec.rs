//! The canonical encoding: fixed-width big-endian numbers and counted lists, and only one encoding for each value, so
//! `encode(decode(b)) == b` for every `b` that decodes. Every length is checked before memory is allocated. The
//! [`Wire`] trait is implemented by the `wire!` macro for messages; [`List`], [`Blob`] and [`Text`] have a maximal
//! length in their type.

use crate::ids;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Reasons to reject bytes as an invalid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DecodeError {
    /// The bytes end inside a value.
    Truncated,
    /// Bytes follow the end of the value.
    Trailing,
    /// A count or length is above its limit.
    TooLong,
    /// A tag, flag or text has no valid meaning.
    Invalid,
    /// The number of an enum's variant that this version does not know.
    UnknownType(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("message ends too early"),
            Self::Trailing => f.write_str("message has bytes left over"),
            Self::TooLong => f.write_str("a length is above its limit"),
            Self::Invalid => f.write_str("a field has no valid meaning"),
            Self::UnknownType(t) => write!(f, "unknown message type {t}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// A cursor over bytes that are being decoded.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts reading at the first of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    /// Returns the bytes that are left to read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Returns an error unless all bytes were read.
    pub const fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Type whose values have a canonical encoding.
pub trait Wire: Sized {
    /// Minimum length of a value's encoding in bytes, at least 1. A list's item count is checked against it before
    /// memory is allocated.
    const MIN_LEN: usize;
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads one value from `r`.
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Returns the encoding as a new vector.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads a value that must take up all of `bytes`.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let v = Self::decode(&mut r)?;
        r.end()?;
        Ok(v)
    }
}

macro_rules! wire_ints {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            const MIN_LEN: usize = size_of::<$t>();
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let mut b = [0; size_of::<$t>()];
                b.copy_from_slice(r.take(size_of::<$t>())?);
                Ok(Self::from_be_bytes(b))
            }
        }
    )*};
}
wire_ints!(u8, u16, u32, u64, i16);

macro_rules! wire_newtypes {
    ($($t:ty: $inner:ty),* $(,)?) => {$(
        impl Wire for $t {
            const MIN_LEN: usize = <$inner as Wire>::MIN_LEN;
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(Wire::decode(r)?))
            }
        }
    )*};
}
wire_newtypes!(
    ids::Guid: [u8; 16], ids::SecondaryGuid: [u8; 20], ids::PublicKey: [u8; 32], ids::Signature: [u8; 64],
    ids::Digest: [u8; 32], ids::VersionId: [u8; 32], ids::DownloadId: [u8; 16], ids::IntroId: [u8; 16],
    ids::RecordId: [u8; 16], ids::ProviderId: u32, ids::PieceIndex: u32, ids::SessionId: u64,
);

impl<const N: usize> Wire for [u8; N] {
    const MIN_LEN: usize = N;
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut b = [0; N];
        b.copy_from_slice(r.take(N)?);
        Ok(b)
    }
}

impl Wire for bool {
    const MIN_LEN: usize = 1;
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::decode(r)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    const MIN_LEN: usize = 1;
    fn encode(&self, out: &mut Vec<u8>) {
        self.is_some().encode(out);
        if let Some(v) = self {
            v.encode(out);
        }
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::decode(r)? { Some(T::decode(r)?) } else { None })
    }
}

impl Wire for SocketAddr {
    const MIN_LEN: usize = 7;
    fn encode(&self, out: &mut Vec<u8>) {
        match self.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        self.port().encode(out);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ip = match u8::decode(r)? {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::decode(r)?)),
            6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::decode(r)?)),
            _ => return Err(DecodeError::Invalid),
        };
        Ok(Self::new(ip, u16::decode(r)?))
    }
}

/// A list of at most `MAX` items.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    /// Maximum number of items in the list.
    pub const MAX: usize = MAX;

    /// Makes a list of the first `MAX` items.
    #[must_use]
    pub fn truncated(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(MAX).collect())
    }

    /// Makes a list of `items`; an error if there are more than `MAX`.
    pub fn new(items: Vec<T>) -> Result<Self, DecodeError> {
        if items.len() > MAX { Err(DecodeError::TooLong) } else { Ok(Self(items)) }
    }

    /// Returns the items as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> core::ops::Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

fn encode_count(n: usize, max: usize, out: &mut Vec<u8>) {
    assert!(n <= max, "a bounded value grew past its bound");
    u32::try_from(n).unwrap_or(u32::MAX).encode(out);
}

fn decode_count(r: &mut Reader<'_>, max: usize, item: usize) -> Result<usize, DecodeError> {
    let n = usize::try_from(u32::decode(r)?).map_err(|_| DecodeError::TooLong)?;
    if n > max {
        return Err(DecodeError::TooLong);
    }
    if n.saturating_mul(item) > r.rest().len() {
        return Err(DecodeError::Truncated);
    }
    Ok(n)
}

impl<T: Wire, const MAX: usize> Wire for List<T, MAX> {
    const MIN_LEN: usize = 4;
    fn encode(&self, out: &mut Vec<u8>) {
        encode_count(self.0.len(), MAX, out);
        self.0.iter().for_each(|v| v.encode(out));
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = decode_count(r, MAX, T::MIN_LEN.max(1))?;
        (0..n).map(|_| T::decode(r)).collect::<Result<_, _>>().map(Self)
    }
}

/// At most `MAX` opaque bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Blob<MAX> {
    /// Makes a blob of `bytes`; an error if there are more than `MAX`.
    pub fn new(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        if bytes.len() > MAX { Err(DecodeError::TooLong) } else { Ok(Self(bytes)) }
    }
    /// Returns the bytes as a vector.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> core::ops::Deref for Blob<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Blob<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<const MAX: usize> Wire for Blob<MAX> {
    const MIN_LEN: usize = 4;
    fn encode(&self, out: &mut Vec<u8>) {
        encode_count(self.0.len(), MAX, out);
        out.extend_from_slice(&self.0);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = decode_count(r, MAX, 1)?;
        Ok(Self(r.take(n)?.to_vec()))
    }
}

/// UTF-8 text of at most `MAX` bytes, without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Makes a text; an error if it is too long or contains a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, DecodeError> {
        let text = text.into();
        if text.len() > MAX {
            return Err(DecodeError::TooLong);
        }
        if text.chars().any(char::is_control) { Err(DecodeError::Invalid) } else { Ok(Self(text)) }
    }
}

impl<const MAX: usize> core::ops::Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Wire for Text<MAX> {
    const MIN_LEN: usize = 4;
    fn encode(&self, out: &mut Vec<u8>) {
        encode_count(self.0.len(), MAX, out);
        out.extend_from_slice(self.0.as_bytes());
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = decode_count(r, MAX, 1)?;
        let text = core::str::from_utf8(r.take(n)?).map_err(|_| DecodeError::Invalid)?;
        Self::new(text)
    }
}

#[cfg(feature = "arbitrary")]
mod arbitrary_impls {
    use super::{Blob, List, Text};
    use arbitrary::{Arbitrary, Result, Unstructured};

    impl<'a, T: Arbitrary<'a>, const MAX: usize> Arbitrary<'a> for List<T, MAX> {
        fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
            u.arbitrary_iter()?.take(MAX).collect::<Result<_>>().map(Self)
        }
    }
    impl<'a, const MAX: usize> Arbitrary<'a> for Blob<MAX> {
        fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
            u.arbitrary_iter()?.take(MAX).collect::<Result<_>>().map(Self)
        }
    }
    impl<'a, const MAX: usize> Arbitrary<'a> for Text<MAX> {
        fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
            let text: &str = u.arbitrary()?;
            Ok(Self(text.chars().filter(|c| !c.is_control()).take(MAX / 4).collect()))
        }
    }
}

/// Declares message types: structs, encoded as their fields in order, and enums, encoded as the variant's number in
/// one byte followed by its content.
#[macro_export]
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        impl $crate::codec::Wire for $name {
            const MIN_LEN: usize = 0 $(+ <$ty as $crate::codec::Wire>::MIN_LEN)*;
            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                $($crate::codec::Wire::encode(&self.$field, out);)*
            }
            fn decode(r: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                Ok(Self { $($field: $crate::codec::Wire::decode(r)?,)* })
            }
        }
    )+};
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $var:ident $(($ty:ty))? = $num:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
        pub enum $name { $($(#[$vmeta])* $var $(($ty))?,)+ }
        impl $name {
            /// Returns the variant's number, the first byte of the encoding.
            #[must_use]
            pub const fn number(&self) -> u8 {
                match self { $($crate::wire!(@pat $var $($ty)?) => $num,)+ }
            }
            /// Returns the variant's name, for logs and metrics.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $($crate::wire!(@pat $var $($ty)?) => stringify!($var),)+ }
            }
        }
        impl $crate::codec::Wire for $name {
            const MIN_LEN: usize = 1;
            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                out.push(self.number());
                match self { $($crate::wire!(@bind body $var $($ty)?) => { $crate::wire!(@encode body out $($ty)?); })+ }
            }
            fn decode(r: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match <u8 as $crate::codec::Wire>::decode(r)? {
                    $($num => Ok($crate::wire!(@decode r $var $($ty)?)),)+
                    other => Err($crate::codec::DecodeError::UnknownType(other)),
                }
            }
        }
    };
    (@pat $var:ident $ty:ty) => { Self::$var(_) };
    (@pat $var:ident) => { Self::$var };
    (@bind $b:ident $var:ident $ty:ty) => { Self::$var($b) };
    (@bind $b:ident $var:ident) => { Self::$var };
    (@encode $b:ident $out:ident $ty:ty) => { $crate::codec::Wire::encode($b, $out) };
    (@encode $b:ident $out:ident) => {};
    (@decode $r:ident $var:ident $ty:ty) => { Self::$var($crate::codec::Wire::decode($r)?) };
    (@decode $r:ident $var:ident) => { Self::$var };
}
