//! The router at the beginning of this host's route to the Internet, as the operating system reports it.

use std::net::Ipv4Addr;

/// Returns the gateway of the IPv4 default route. `None` if there is no such route, or on systems other than Linux.
pub(super) fn default_route() -> Option<Ipv4Addr> {
    if cfg!(target_os = "linux") {
        std::fs::read_to_string("/proc/net/route").ok().and_then(|table| of_table(&table))
    } else {
        None
    }
}

/// Flags of a route that is up (0x1) and leads through a gateway (0x2).
const UP_GATEWAY: u32 = 0x3;

/// Returns the gateway of the default route with the lowest metric in the text of `/proc/net/route`, whose fields are
/// interface, destination, gateway, flags, two counters, metric, mask, and more. Addresses are hexadecimal, in the
/// processor's byte order.
fn of_table(table: &str) -> Option<Ipv4Addr> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, destination, gateway, flags, _, _, metric, mask, ..] = fields[..] else { return None };
        let hex = |field| u32::from_str_radix(field, 16).ok();
        let default = hex(destination)? == 0 && hex(mask)? == 0 && hex(flags)? & UP_GATEWAY == UP_GATEWAY;
        let gateway = Ipv4Addr::from(hex(gateway)?.to_ne_bytes());
        default.then_some((metric.parse::<u32>().ok()?, gateway))
    });
    routes
        .filter(|(_, gateway)| !gateway.is_unspecified())
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn line(destination: [u8; 4], gateway: [u8; 4], flags: u32, metric: u32, mask: [u8; 4]) -> String {
        let [d, g, m] = [destination, gateway, mask].map(u32::from_ne_bytes);
        format!("eth0\t{d:08X}\t{g:08X}\t{flags:04X}\t0\t0\t{metric}\t{m:08X}\t0\t0\t0\n")
    }

    #[test]
    fn the_best_default_route_names_the_gateway() {
        let any = [0; 4];
        let table = [
            HEAD.to_owned(),
            line([10, 0, 0, 0], [10, 0, 0, 9], 3, 0, [255, 0, 0, 0]),
            line(any, [192, 168, 1, 2], 3, 600, any),
            line(any, [192, 168, 1, 1], 3, 100, any),
            line(any, [192, 168, 1, 3], 2, 0, any),
            line(any, any, 1, 0, any),
            "broken line\n".to_owned(),
        ];
        assert_eq!(of_table(&table.concat()), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(of_table(&table[..2].concat()), None);
        assert_eq!(of_table(""), None);
    }
}
