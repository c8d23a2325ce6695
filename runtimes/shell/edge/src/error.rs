//! Errors of an edge and of the commands on its published objects.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use swarmedge_core::ids::ProviderId;
use swarmedge_ground::error::{Code, reason};

/// An error of an edge or of a command on its objects; the text names object and cause in one line.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read or written.
    File {
        /// Path of the file.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// The file to publish changed while it was copied.
    Unstable(PathBuf),
    /// The file to publish is too large, or not a regular file.
    Unfit(PathBuf, &'static str),
    /// An object cannot have this path.
    BadPath(String, &'static str),
    /// The provider has published no object at this path.
    NotFound(ProviderId, String),
    /// A catalogue, manifest, spool, certificate or key file does not parse.
    Damaged(PathBuf, String),
    /// The policy file does not parse; the text names it with line, key and value.
    Policy(String),
    /// A provider's key, salt or token name is not acceptable.
    ProviderKey(String),
    /// A value of the configuration is wrong.
    Config(&'static str, String),
    /// Listening on the address failed.
    Listen(SocketAddr, io::Error),
}

impl Error {
    /// Makes an I/O error that names `path`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Unstable(path) => write!(f, "{} changed while it was read: publish it again", path.display()),
            Self::Unfit(path, why) => write!(f, "{}: {why}", path.display()),
            Self::BadPath(path, why) => write!(f, "object path {path:?}: {why}"),
            Self::NotFound(provider, path) => write!(f, "provider {provider} has published no object {path:?}"),
            Self::Damaged(path, why) => write!(f, "{} is damaged: {why}", path.display()),
            Self::ProviderKey(why) => f.write_str(why),
            Self::Policy(why) => write!(f, "policy {why}"),
            Self::Config(key, why) => write!(f, "[edge] {key} {why}"),
            Self::Listen(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } | Self::Listen(_, error) => Some(error),
            Self::Unstable(_)
            | Self::Unfit(..)
            | Self::BadPath(..)
            | Self::NotFound(..)
            | Self::Damaged(..)
            | Self::Policy(..)
            | Self::ProviderKey(..)
            | Self::Config(..) => None,
        }
    }
}

impl From<Error> for swarmedge_ground::error::Error {
    fn from(error: Error) -> Self {
        use Error as E;
        match &error {
            E::File { path, error } => {
                let denied = error.kind() == io::ErrorKind::PermissionDenied;
                let error = Self::io(format_args!("use {}", path.display()), error);
                if denied { error.next("run this as the user whose file it is") } else { error }
            }
            E::Listen(addr, error) => {
                Self::new(Code::Failed, format_args!("cannot listen on {addr}: {}", reason(error)))
                    .next("end what uses the port, or configure another")
            }
            E::NotFound(..) => Self::new(Code::NotFound, error).next("`objects` lists what is published"),
            E::Unstable(_) | E::Damaged(..) => Self::failed(error),
            E::Unfit(..) | E::BadPath(..) | E::Policy(..) | E::ProviderKey(..) | E::Config(..) => Self::usage(error),
        }
    }
}
