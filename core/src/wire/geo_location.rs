//! Network and location of an IP address, by geolocation.

crate::wire! {
    /// Autonomous system, country and continent of an IP address, by geolocation. All fields are `None` without a
    /// database.
    pub struct Locality {
        /// Number of the address's autonomous system.
        pub asn: Option<u32>,
        /// ISO 3166-1 alpha-2 country code.
        pub country: Option<[u8; 2]>,
        /// Number that stands for a continent.
        pub region: Option<u8>,
    }

    /// Coordinates of a place on the globe, in tenths of a degree.
    pub struct Coordinates {
        /// Latitude in tenths of a degree, north positive.
        pub latitude: i16,
        /// Longitude in tenths of a degree, east positive.
        pub longitude: i16,
    }

    /// Network and rough location of an address.
    pub struct GeoLocation {
        /// Network and country of the address.
        pub locality: Locality,
        /// Approximate coordinates; `None` if the database has none.
        pub at: Option<Coordinates>,
    }
}

impl Copy for Locality {}
impl Copy for Coordinates {}
impl Copy for GeoLocation {}

impl Locality {
    /// Locality of an address that geolocation does not know.
    pub const UNKNOWN: Self = Self { asn: None, country: None, region: None };
}

impl Default for Locality {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl GeoLocation {
    /// Location of an address that geolocation does not know.
    pub const UNKNOWN: Self = Self { locality: Locality::UNKNOWN, at: None };
}

impl Default for GeoLocation {
    fn default() -> Self {
        Self::UNKNOWN
    }
}
