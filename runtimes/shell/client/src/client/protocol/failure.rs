//! Failures as the user sees them: a reason, advice, and a code that decides the exit code.

use serde::{Deserialize, Serialize};
use swarmedge_core::role::client::io::{CommandError, FailReason, StoreError};
use swarmedge_ground::error::{Code, Error};

/// The reason why a request or download failed, and advice for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure, which decides the exit code.
    pub code: Code,
    /// The reason, as a sentence for the user.
    pub reason: String,
    /// The advice for the user; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next_step: String,
}

impl Failure {
    /// Builds a failure from its parts.
    pub fn new(code: Code, reason: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), next_step: next_step.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = Self::new(failure.code, failure.reason);
        if failure.next_step.is_empty() { error } else { error.next(failure.next_step) }
    }
}

impl From<FailReason> for Failure {
    fn from(why: FailReason) -> Self {
        use Code as C;
        match why {
            FailReason::NotFound => Self::new(C::NotFound, "the edge does not know this object", "check the URL"),
            FailReason::Expired => {
                let next = "its provider delivers it no more: ask the provider";
                Self::new(C::NotFound, "this object has expired", next)
            }
            FailReason::TokenExpired => {
                let next = "get a new token from its provider, and run the same get with it: nothing verified is \
                            fetched twice";
                Self::new(C::Forbidden, "the token with which this download began has expired", next)
            }
            FailReason::Blocked => {
                let what = "the operator has blocked this version of the client";
                Self::new(C::Forbidden, what, "update the client, then run the same get again")
            }
            FailReason::Forbidden => {
                let next = "get a new token from its provider, and give it with --token or in the URL";
                Self::new(C::Forbidden, "the edge refuses this object: it is not public", next)
            }
            FailReason::EdgeUnreachable => {
                Self::new(C::Unreachable, "no edge server answers", "check the network, then run the same get again")
            }
            FailReason::VersionGone => {
                let next = "run the same get again for the present version";
                Self::new(C::Failed, "the object was replaced or withdrawn during the download", next)
            }
            FailReason::NoSpace => {
                let next = "free some space, then run the same get again: nothing verified is fetched twice";
                Self::new(C::Disk, "the disk is full", next)
            }
            FailReason::Io => {
                let next = "check that the state directory and the target's can be written to, and the disk's health";
                Self::new(C::Disk, "a file cannot be written or read", next)
            }
            FailReason::EdgeCorrupt => {
                Self::new(C::Failed, "the edge sends wrong bytes", "report it to the operator, or try again later")
            }
            FailReason::OutputTaken => {
                let next = "use --force to replace it, or another name with -o: nothing verified is fetched twice";
                Self::new(C::Usage, "another file stands where this one goes", next)
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(why: StoreError) -> Self {
        FailReason::from(why).into()
    }
}

impl From<CommandError> for Failure {
    fn from(why: CommandError) -> Self {
        use Code as C;
        match why {
            CommandError::UnknownHandle => Self::new(C::NotFound, "no such download", "`status` lists the downloads"),
            CommandError::UnknownVersion => {
                Self::new(C::NotFound, "no such version in the cache", "`cache list` lists the versions")
            }
            CommandError::InUse => {
                Self::new(C::Failed, "a download is using this version", "cancel the download first")
            }
            CommandError::AlreadyRunning => {
                let next = "wait for it, or cancel that download";
                Self::new(C::Usage, "this object is on its way to another file", next)
            }
            CommandError::Store(why) => why.into(),
        }
    }
}
