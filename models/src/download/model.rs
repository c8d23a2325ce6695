//! Model of a download with a corrupting peer, lost sources and a crash.

use crate::check::{Spec, Tooth};
use crate::download::{Cfg, Mutant, Peer, RULES, Swarm, world};
use crate::world::{Budget, World};
use swarmedge_core::content::{Bitfield, Layout};
use swarmedge_core::swarm::download;

const PIECES: u32 = 2;

fn cfg() -> Cfg {
    let layout = Layout::new(u64::from(PIECES) * 64 * 1024, 64 * 1024).expect("a usual layout");
    let has = Bitfield::full(PIECES);
    Cfg {
        download: download::Config::tiny(),
        layout,
        peers: vec![Peer { has: has.clone(), corrupts: true, visits: 2 }, Peer { has, corrupts: false, visits: 1 }],
        mutant: None,
    }
}

fn start(cfg: &Cfg) -> World<Swarm> {
    world(cfg, Budget { drops: 1, corruptions: 1, crashes: 1, fires: 1, early: 1, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: &'static str, mutant: Mutant) -> Tooth<Swarm> {
    Tooth { defect, rule, cfg: Cfg { mutant: Some(mutant), ..cfg() } }
}

/// Returns the model of a download, with its bounds and seeded defects.
pub fn spec() -> Spec<Swarm> {
    Spec {
        name: "download",
        about: "2 pieces, the edge, an honest peer, a corrupting one that comes twice; 1 wrong block, 1 loss, 1 crash, 1 early timer",
        cfg: cfg(),
        start,
        rules: RULES,
        teeth: vec![
            tooth(
                "a wrong block passes the check",
                "a piece is committed only if each of its blocks was verified",
                Mutant::BadBlockCounts,
            ),
            tooth("a complete piece is committed again", "a piece is committed at most once", Mutant::CommitsTwice),
            tooth(
                "a wrong block is taken for a broken transfer",
                "a peer that sent a wrong block is not asked again",
                Mutant::BlameIsLost,
            ),
            tooth(
                "a window is twice as wide as configured",
                "no more is under way than the windows allow",
                Mutant::WindowTwiceAsWide,
            ),
            tooth(
                "the journal loses a piece but not its count",
                "every durable byte is counted once, for one source",
                Mutant::JournalLosesPiece,
            ),
            tooth(
                "the completion of a commit is lost",
                "the download completes while the edge lives",
                Mutant::SavedIsLost,
            ),
        ],
    }
}
