//! Network and location of an IP address, by geolocation.

crate::wire! {
    /// Network and country of an address by geolocation. Empty without a database; address prefixes then replace AS
    /// numbers.
    pub struct Locality {
        /// The number of its autonomous system.
        pub asn: Option<u32>,
        /// ISO 3166-1 alpha-2 country code.
        pub country: Option<[u8; 2]>,
        /// A number for a group of countries: a continent.
        pub region: Option<u8>,
    }

    /// A point on the globe, to a tenth of a degree: tells cities apart, not streets.
    pub struct Coordinates {
        /// Tenths of a degree, north positive.
        pub latitude: i16,
        /// Tenths of a degree, east positive.
        pub longitude: i16,
    }

    /// Network and rough location of an address.
    pub struct GeoLocation {
        /// Network and country of the address.
        pub locality: Locality,
        /// Rough location, if the database has one.
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
