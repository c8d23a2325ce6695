//! The one permitted hash map.
