//! Validity, names and issuer of a server's X.509 certificate.

use super::provider;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// DER encoding of the object identifier of the extension "subject alternative name" (RFC 5280 §4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The validity and names of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The start of validity, in Unix seconds.
    pub not_before_s: u64,
    /// The end of validity, in Unix seconds.
    pub not_after_s: u64,
    /// The DNS names and IP addresses of the server.
    pub names: Vec<String>,
}

impl Facts {
    /// Returns the validity and names in the first certificate of a PEM chain; `None` if it cannot be parsed.
    #[must_use]
    pub fn of(cert_pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
        let (_, certificate, _) = tlv(&der)?;
        let (_, mut rest, _) = tlv(certificate)?;
        // version (explicit tag 0, where there is one), serial number, signature algorithm, issuer
        let skipped = if rest.first() == Some(&0xa0) { 4 } else { 3 };
        for _ in 0..skipped {
            rest = tlv(rest)?.2;
        }
        let (_, validity, after) = tlv(rest)?;
        let (tag, not_before, validity) = tlv(validity)?;
        let not_before_s = time_s(tag, not_before)?;
        let (tag, not_after, _) = tlv(validity)?;
        Some(Self { not_before_s, not_after_s: time_s(tag, not_after)?, names: names(after).unwrap_or_default() })
    }
}

/// Returns whether one of the CAs in `ca_pem` has itself signed the first certificate of a chain (PEM), expired or
/// not.
#[must_use]
pub fn is_issued_by(cert_pem: &str, ca_pem: &str) -> bool {
    let check = || {
        let facts = Facts::of(cert_pem)?;
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(ca_pem.as_bytes()).flatten());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
        // it is asked who signed, not whether today is in its time or whose name it bears
        let then = UnixTime::since_unix_epoch(Duration::from_secs(facts.not_after_s));
        let name = ServerName::try_from("localhost").ok()?;
        match verifier.verify_server_cert(&der, &[], &name, &[], then) {
            Ok(_) => Some(()),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Some(()),
            Err(_) => None,
        }
    };
    check().is_some()
}

/// Parses the names in the part of a certificate after its validity: subject, key, then extensions (explicit tag 3).
fn names(after_validity: &[u8]) -> Option<Vec<String>> {
    let mut rest = after_validity;
    let extensions = loop {
        let (tag, content, next) = tlv(rest)?;
        if tag == 0xa3 {
            break content;
        }
        rest = next;
    };
    let (_, mut extensions, _) = tlv(extensions)?;
    while let Some((_, extension, next)) = tlv(extensions) {
        extensions = next;
        let (_, id, mut value) = tlv(extension)?;
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        let (mut tag, mut content, more) = tlv(value)?;
        if tag == 0x01 {
            // critical or not
            value = more;
            (tag, content, _) = tlv(value)?;
        }
        let (_, mut general, _) = tlv(content).filter(|_| tag == 0x04)?;
        let mut found = Vec::new();
        while let Some((tag, name, next)) = tlv(general) {
            general = next;
            found.extend(general_name(tag, name));
        }
        return Some(found);
    }
    None
}

/// Returns a name as text if it is a DNS name or an IP address; `None` for other kinds.
fn general_name(tag: u8, name: &[u8]) -> Option<String> {
    match tag {
        0x82 => std::str::from_utf8(name).ok().map(String::from),
        0x87 => {
            let v4 = <[u8; 4]>::try_from(name).map(IpAddr::from).ok();
            let ip = v4.or_else(|| <[u8; 16]>::try_from(name).map(IpAddr::from).ok())?;
            Some(ip.to_string())
        }
        _ => None,
    }
}

/// Parses a certificate's time (RFC 5280 §4.1.2.5); returns Unix seconds.
fn time_s(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        // UTCTime: years 1950 to 2049
        0x17 => {
            let two: u64 = text.get(..2)?.parse().ok()?;
            (if two < 50 { 2000 + two } else { 1900 + two }, text.get(2..)?)
        }
        0x18 => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |i: usize| rest.get(i..i + 2)?.parse::<u64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    Some(((days_since_1970(year, month, day)? * 24 + hour) * 60 + minute) * 60 + second)
}

/// Splits off the first DER element; returns its tag, its content, and the bytes after it.
fn tlv(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(b, _)| b.len() <= 4)?;
        (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// Returns the days from 1970 to a Gregorian date; `None` before 1970 or for an invalid month.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before_month = *BEFORE.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    let leap_days = |y: u64| y / 4 - y / 100 + y / 400;
    let is_leap = leap_days(year) != leap_days(year.checked_sub(1)?);
    let years = year.checked_sub(1970)? * 365 + leap_days(year - 1) - leap_days(1969);
    Some(years + before_month + u64::from(is_leap && month > 2) + day.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertAuthority;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn a_certificates_times_and_names_are_read() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2024, 3, 1), Some(19_783));
        assert_eq!(days_since_1970(2100, 3, 1), Some(47_541));
        assert_eq!((days_since_1970(1969, 1, 1), days_since_1970(2024, 13, 1)), (None, None));
        let names = ["cn.example", "*.example.org", "127.0.0.1", "2001:db8::7"];
        let (cert, _) = CertAuthority::new().and_then(|ca| ca.issue(&names)).expect("issued");
        let facts = Facts::of(&cert).expect("readable");
        assert_eq!(facts.names, names);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
        let day = 24 * 3600;
        // within a slow test's time
        assert!(facts.not_after_s.abs_diff(now + 365 * day) < 120, "{facts:?}");
        assert!(facts.not_before_s.abs_diff(now - day) < 120, "{facts:?}");
        assert_eq!(Facts::of("no certificate"), None);
    }

    #[test]
    fn who_issued_is_told_by_the_signature_whatever_the_names_say() {
        let (ours, theirs) = (CertAuthority::new().expect("made"), CertAuthority::new().expect("made"));
        let (cert, _) = ours.issue(&["a.example"]).expect("issued");
        // both call themselves the same
        let both = theirs.cert_pem().to_owned() + ours.cert_pem();
        assert!(is_issued_by(&cert, ours.cert_pem()) && is_issued_by(&cert, &both));
        assert!(!is_issued_by(&cert, theirs.cert_pem()));
        assert!(ours.has_issued(&cert).expect("looked") && !theirs.has_issued(&cert).expect("looked"));
        // the authority's key decides, not what lies in its file
        let reloaded = CertAuthority::load(&both, &theirs.key_pem()).expect("loads");
        assert!(!reloaded.has_issued(&cert).expect("looked"));
        for none in ["", "no certificate"] {
            assert!(!is_issued_by(none, ours.cert_pem()) && !is_issued_by(&cert, none));
        }
    }
}
