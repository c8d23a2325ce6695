//! The stun role.
