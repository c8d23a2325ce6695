//! The ledger role.
