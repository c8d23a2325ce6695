//! Tests a CN's spool on loopback.

use super::{PATIENCE, R, run};
use swarmedge_control::cn;
use swarmedge_control::config::CnConfig;
use swarmedge_core::ids::IntroId;
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, LogRecord};
use swarmedge_ground::http::Signal;
use swarmedge_ground::spool::Spool;

/// A CN introduces clients while no ledger is reachable, and stops; the next CN on its spool delivers the records.
#[test]
fn the_next_cn_on_a_spool_delivers_its_introduction_records() {
    run::<R, _>(|net| async move {
        let dn = net.dn();
        let nobody = "127.0.0.1:1".parse().expect("an address");
        let held = || Spool::open(&net.path("cn-spool.redb")).expect("the CN has closed it").1.0;
        let run = |cfg: &CnConfig| {
            let stop = Signal::default();
            (net.start(cn::open(&net.rt, &net.operator(), cfg, &stop, &net.health).expect("opens")), stop)
        };
        let cfg = net.cn_config(dn, nobody);
        let (cn, stop) = run(&cfg);
        let (up, down, introduced) = net.introduced(cn).await;
        stop.set();
        net.ended(1).await;
        drop((up, down));
        let offered = |record: &LedgerRecord| match record {
            LedgerRecord::Log(LogRecord { event: LogEvent::Offered(o), .. }) => {
                o.peers.iter().map(|p| p.intro).collect()
            }
            // the grant under which the clients were introduced
            LedgerRecord::Granted(_) => Vec::new(),
            other => panic!("unexpected: {other:?}"),
        };
        let intros: Vec<IntroId> = held().iter().flat_map(|record| -> Vec<_> { offered(record) }).collect();
        assert_eq!(intros, [introduced[0].intro.intro.id]);

        // the CN stops as soon as the ledger has acknowledged everything
        let ledger = net.ledger().await;
        let drain_ms = u64::try_from(2 * PATIENCE.as_millis()).expect("small");
        let (_, stop) = run(&CnConfig { drain_ms, ledger: Some(ledger.to_string()), ..cfg });
        stop.set();
        net.ended(2).await;
        assert_eq!(held(), []);
    });
}
