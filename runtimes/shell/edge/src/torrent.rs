//! Export of a published version as a BitTorrent v2 file (BEP 52) with the edge as its web seed (BEP 19).

use crate::catalogue::Files;
use crate::{EdgeConfig, Error};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::path::Path;
use swarmedge_core::content::{Manifest, merkle};
use swarmedge_core::ids::{Digest, ProviderId, VersionId};

/// Characters to percent-encode in a URL's path segment: all but the unreserved ones (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A `.torrent` file and its info-hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torrent {
    /// Bytes of the bencoded file.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bencoded `info` dictionary: the v2 info-hash.
    pub info_hash: Digest,
}

/// Result of `torrent export`, also its `--json` output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Version id in hexadecimal.
    pub version: String,
    /// BitTorrent v2 info-hash in hexadecimal.
    pub info_hash: String,
    /// Magnet link of the same torrent.
    pub magnet: String,
    /// URL of the object at the edge.
    pub web_seed: String,
    /// Size of the content in bytes.
    pub size: u64,
}

/// Writes the `.torrent` of an object's current version to `output`.
pub fn export(cfg: &EdgeConfig, provider: ProviderId, path: &str, output: &Path) -> Result<Exported, Error> {
    let files = Files::new(&cfg.objects);
    let catalogue = files.load()?;
    let (_, version, facts) =
        catalogue.current(&(provider, path.to_owned())).ok_or_else(|| Error::NotFound(provider, path.to_owned()))?;
    let manifest = files.load_manifest(version)?;
    let web_seed = object_url(&cfg.url, provider, path);
    let torrent = torrent(&manifest, facts.published_ms / 1000, &web_seed);
    std::fs::write(output, &torrent.bytes).map_err(Error::at(output))?;
    Ok(exported(&torrent, version, &manifest, web_seed))
}

fn exported(torrent: &Torrent, version: VersionId, manifest: &Manifest, web_seed: String) -> Exported {
    // a multihash: SHA-256 of 32 bytes
    let magnet = format!("magnet:?xt=urn:btmh:1220{}&dn={}", torrent.info_hash, encoded(name(&manifest.path)));
    Exported {
        version: version.to_string(),
        info_hash: torrent.info_hash.to_string(),
        magnet: format!("{magnet}&ws={}", encoded(&web_seed)),
        web_seed,
        size: manifest.layout().size(),
    }
}

/// Returns the URL of an object at an edge. It must not end in a slash: for a torrent of one file the web seed is then
/// the file's own URL (BEP 19).
#[must_use]
pub fn object_url(edge: &str, provider: ProviderId, path: &str) -> String {
    let segments: Vec<_> = path.split('/').map(encoded).collect();
    format!("{edge}/{provider}/{}", segments.join("/"))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Makes the `.torrent` of a version. `created_s` is in Unix seconds.
#[must_use]
pub fn torrent(manifest: &Manifest, created_s: u64, web_seed: &str) -> Torrent {
    let layout = manifest.layout();
    let root = merkle::file_root(&layout, manifest.roots());
    let mut file = Value::dict([("length", Value::Int(layout.size()))]);
    if let (Value::Dict(file), Some(root)) = (&mut file, root) {
        file.insert(b"pieces root".into(), Value::bytes(root.0));
    }
    let name = name(&manifest.path);
    let info = Value::dict([
        ("file tree", Value::dict([(name, Value::dict([("", file)]))])),
        ("meta version", Value::Int(2)),
        ("name", Value::bytes(name)),
        ("piece length", Value::Int(u64::from(layout.piece_len()))),
    ]);
    let mut layers = BTreeMap::new();
    // a file of one piece has no layer, since the piece's root is the file's root
    if let (Some(root), 2..) = (root, layout.pieces()) {
        let layer: Vec<u8> = manifest.roots().iter().flat_map(|root| root.0).collect();
        layers.insert(root.0.to_vec(), Value::bytes(layer));
    }
    let info_hash = Digest(sha2::Sha256::digest(info.encoded()).into());
    let all = Value::dict([
        ("created by", Value::bytes(concat!("swarmedge/", env!("CARGO_PKG_VERSION")))),
        ("creation date", Value::Int(created_s)),
        ("info", info),
        ("piece layers", Value::Dict(layers)),
        ("url-list", Value::List(vec![Value::bytes(web_seed)])),
    ]);
    Torrent { bytes: all.encoded(), info_hash }
}

/// A bencoded value (BEP 3), without negative integers. Keys of a dictionary are sorted as raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Int(u64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(BTreeMap<Vec<u8>, Self>),
}

impl Value {
    fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(bytes.as_ref().to_vec())
    }

    fn dict<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Dict(entries.into_iter().map(|(key, value)| (key.as_bytes().to_vec(), value)).collect())
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Appends the value in bencoding (BEP 3).
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(n) => out.extend_from_slice(format!("i{n}e").as_bytes()),
            Self::Bytes(bytes) => encode_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.encode(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    encode_bytes(key, out);
                    value.encode(out);
                }
                out.push(b'e');
            }
        }
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::content::Layout;
    use swarmedge_core::ids::PieceIndex;
    use swarmedge_core::wire::Text;

    fn manifest(path: &str, bytes: &[u8]) -> Manifest {
        let layout = Layout::new(bytes.len() as u64, 65_536).expect("a layout");
        let root = |piece: PieceIndex| {
            let range = layout.piece_range(piece);
            let at = |n: u64| usize::try_from(n).expect("small");
            merkle::piece_root(&layout, piece, &merkle::leaves(&bytes[at(range.start)..at(range.end)]))
        };
        let roots = layout.iter().map(root).collect();
        Manifest::new(ProviderId(7), Text::new(path).expect("short"), layout, roots).expect("one root a piece")
    }

    fn sha256(parts: &[&[u8]]) -> Vec<u8> {
        let mut hash = sha2::Sha256::new();
        parts.iter().for_each(|p| hash.update(p));
        hash.finalize().to_vec()
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn a_file_of_one_block_has_its_hash_as_root_and_no_layer() {
        let t = torrent(&manifest("dir/a.bin", b"hello"), 1_700_000_000, "https://e:1/7/dir/a.bin");
        let info = joined(&[
            b"d9:file treed5:a.bind0:d6:lengthi5e11:pieces root32:",
            &sha256(&[b"hello"]),
            b"eee12:meta versioni2e4:name5:a.bin12:piece lengthi65536ee",
        ]);
        let created = format!("swarmedge/{}", env!("CARGO_PKG_VERSION"));
        let expected = joined(&[
            format!("d10:created by{}:{created}13:creation datei1700000000e4:info", created.len()).as_bytes(),
            &info,
            b"12:piece layersde8:url-listl23:https://e:1/7/dir/a.binee",
        ]);
        assert_eq!(String::from_utf8_lossy(&t.bytes), String::from_utf8_lossy(&expected));
        assert_eq!(t.bytes, expected);
        assert_eq!(t.info_hash.0.to_vec(), sha256(&[&info]));
    }

    #[test]
    fn the_last_piece_of_a_layer_is_padded_with_zero_leaves() {
        let bytes = [vec![1; 65_536], vec![2; 100]].concat();
        let t = torrent(&manifest("b", &bytes), 0, "https://e:1/7/b");
        let leaf = sha256(&[&[1; 16_384]]);
        let pair = sha256(&[&leaf, &leaf]);
        let first = sha256(&[&pair, &pair]);
        let zero = [0; 32];
        let zeros = sha256(&[&zero, &zero]);
        let second = sha256(&[&sha256(&[&sha256(&[&[2; 100]]), &zero]), &zeros]);
        let root = sha256(&[&first, &second]);
        let contains = |what: &[u8]| t.bytes.windows(what.len()).any(|w| w == what);
        assert!(contains(&joined(&[b"6:lengthi65636e11:pieces root32:", &root, b"e"])));
        assert!(contains(&joined(&[b"12:piece layersd32:", &root, b"64:", &first, &second, b"e8:url-list"])));
    }

    #[test]
    fn an_empty_file_has_no_root() {
        let t = torrent(&manifest("e", b""), 0, "u");
        let info = b"d9:file treed1:ed0:d6:lengthi0eeee12:meta versioni2e4:name1:e12:piece lengthi65536ee";
        assert!(t.bytes.windows(info.len()).any(|w| w == info), "{}", String::from_utf8_lossy(&t.bytes));
    }

    #[test]
    fn the_web_seed_is_the_objects_own_url() {
        assert_eq!(object_url("https://e:1", ProviderId(7), "a b/ü?#.bin"), "https://e:1/7/a%20b/%C3%BC%3F%23.bin");
        let m = manifest("dir/a b", b"x");
        let t = torrent(&m, 0, "https://e/7/dir/a%20b");
        let e = exported(&t, m.version(), &m, "https://e/7/dir/a%20b".into());
        assert_eq!(
            e.magnet,
            format!("magnet:?xt=urn:btmh:1220{}&dn=a%20b&ws=https%3A%2F%2Fe%2F7%2Fdir%2Fa%2520b", t.info_hash)
        );
    }
}
