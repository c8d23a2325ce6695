//! The dn role.
