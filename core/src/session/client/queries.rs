//! Queries for peers: the downloads that want peers, the rate limit, and the checks of the answers.

use super::io::{Output, Want};
use super::{ClientSession, Context, RETRY_MAX, Timer};
use crate::accounting::{Trust, introductions};
use crate::ids::DownloadId;
use crate::limits::EXCLUDED_MAX;
use crate::machine::{Deadlines, Time};
use crate::session::Backoff;
use crate::session::backoff::jittered;
use crate::wire::List;
use crate::wire::control::{Introductions, Query, QueryError, QueryFailed, ToCn};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Downloads that want peers, and their unanswered queries, at most one for each download. A download's
/// [`Timer::Query`] is set while it waits to query or for the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Queries {
    wants: BTreeMap<DownloadId, Asking>,
    /// Times of the queries of the last minute.
    recent: VecDeque<Time>,
    number: u32,
}

/// Query state of a download that wants peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asking {
    want: Want,
    /// Number of the unanswered query; `None` without one.
    query: Option<u32>,
    /// Whether the CN rejected this grant, so that no query is sent until there is another grant.
    refused: bool,
    /// Back-off after consecutive answers without peers.
    empty: Backoff,
}

impl Queries {
    pub(super) fn forget(&mut self, download: DownloadId) {
        self.wants.remove(&download);
    }

    pub(super) fn disconnected(&mut self, timers: &mut Deadlines<Timer>) {
        for (download, asking) in &mut self.wants {
            // a query that got no answer is sent again at once in the next session
            asking.want.soon |= asking.query.take().is_some();
            asking.refused = false;
            timers.clear(Timer::Query(*download));
        }
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.recent.iter_mut().for_each(|at| *at = at.rebased(by));
    }

    /// Returns the time at which the limit of `per_minute` queries allows the next one; `None`: now.
    fn allowed(&mut self, now: Time, per_minute: u32) -> Option<Time> {
        while self.recent.front().is_some_and(|at| now.since(*at) >= MINUTE) {
            self.recent.pop_front();
        }
        let full = self.recent.len() >= per_minute as usize;
        self.recent.front().filter(|_| full).map(|oldest| oldest.after(MINUTE))
    }

    /// Records the answer to a query and returns the query's download; `None` if no such query is unanswered.
    pub(super) fn answered(&mut self, query: u32) -> Option<DownloadId> {
        let (download, asking) = self.wants.iter_mut().find(|(_, a)| a.query == Some(query))?;
        asking.query = None;
        Some(*download)
    }

    /// Asserts that each download that wants peers waits to query, waits for an answer, or has a rejected grant, with
    /// the right deadline.
    pub(super) fn check(&self, open: bool, timers: &Deadlines<Timer>) {
        for (download, asking) in &self.wants {
            let set = timers.get(Timer::Query(*download)).is_some();
            assert!(asking.want.download == *download, "a wish is filed under its download");
            assert!(asking.query.is_none() || open && set, "a query under way has a time-out");
            assert!(!asking.refused || asking.query.is_none() && !set, "a rejected grant is not shown again");
            let wanting = open && asking.want.more > 0 && !asking.refused;
            assert!(!wanting || set, "a download that wants peers waits to ask or for an answer");
        }
        let mut under_way: Vec<_> = self.wants.values().filter_map(|a| a.query).collect();
        under_way.sort_unstable();
        assert!(under_way.windows(2).all(|pair| pair[0] != pair[1]), "a query belongs to one download");
        let wanted = |t| !matches!(t, Timer::Query(download) if !self.wants.contains_key(&download));
        assert!(timers.keys().all(wanted), "only a download that wants peers has a query's deadline");
        assert!(self.recent.iter().is_sorted(), "the recent queries are in order");
    }
}

#[cfg(test)]
impl Queries {
    /// Changes that make the state wrong while a query is unanswered, each with the text of the assertion that must
    /// fail.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 5] = [
        ("a wish is filed under its download", |all| {
            all.wants.values_mut().for_each(|asking| asking.want.download = DownloadId::numbered(77));
        }),
        ("a rejected grant is not shown again", |all| {
            all.wants.values_mut().for_each(|asking| asking.refused = true);
        }),
        ("a query belongs to one download", |all| {
            let query = all.wants.values().find_map(|asking| asking.query);
            all.wants.values_mut().for_each(|asking| asking.query = query);
        }),
        ("only a download that wants peers has a query's deadline", |all| {
            all.wants.pop_last();
        }),
        ("the recent queries are in order", |all| all.recent = [Time(2), Time(1)].into()),
    ];
}

impl ClientSession {
    pub(super) fn want(&mut self, cx: &mut Context<'_>, want: Want) {
        let download = want.download;
        let asking = self.queries.wants.entry(download).or_insert_with(|| Asking {
            want: want.clone(),
            query: None,
            refused: false,
            empty: Backoff::default(),
        });
        asking.refused = asking.refused && asking.want.grant == want.grant;
        asking.want = want;
        if asking.want.soon && asking.query.is_none() {
            self.timers.clear(Timer::Query(download));
        }
        self.ask_soon(cx, download, cx.now);
    }

    /// Schedules queries for every download that wants peers, when the session has opened.
    pub(super) fn ask_for_all(&mut self, cx: &mut Context<'_>) {
        let downloads: Vec<_> = self.queries.wants.keys().copied().collect();
        for download in downloads {
            self.ask_soon(cx, download, cx.now);
        }
    }

    /// Queries again for downloads whose last answer had no peers, since this host's reachability has changed.
    pub(super) fn ask_who_found_nobody(&mut self, cx: &mut Context<'_>) {
        let found_nobody =
            self.queries.wants.iter().filter(|(_, a)| a.query.is_none() && a.empty != Backoff::default());
        let downloads: Vec<_> = found_nobody.map(|(download, _)| *download).collect();
        for download in downloads {
            self.timers.clear(Timer::Query(download));
            self.ask_soon(cx, download, cx.now);
        }
    }

    /// Schedules a download's query at `at` if it wants peers and has no query scheduled or unanswered.
    fn ask_soon(&mut self, cx: &mut Context<'_>, download: DownloadId, at: Time) {
        let Some(asking) = self.queries.wants.get(&download) else { return };
        let wanting = self.is_open() && asking.want.more > 0 && !asking.refused && asking.query.is_none();
        if !wanting || self.timers.get(Timer::Query(download)).is_some() {
            return;
        }
        self.timers.set(Timer::Query(download), Some(at));
        if at <= cx.now {
            self.timers.clear(Timer::Query(download));
            self.query_due(cx, download);
        }
    }

    /// Sends the download's query if the rate limit allows it. An earlier unanswered query of the download counts as
    /// lost.
    pub(super) fn query_due(&mut self, cx: &mut Context<'_>, download: DownloadId) {
        let Some(asking) = self.queries.wants.get(&download) else { return };
        let rate = cx.cfg.query_rate(!asking.want.exclude.is_empty(), asking.want.soon);
        let later = self.queries.allowed(cx.now, rate);
        let Some(asking) = self.queries.wants.get_mut(&download) else { return };
        asking.query = None;
        if asking.want.more == 0 || asking.refused || !matches!(self.phase, super::Phase::Open(_)) {
            return;
        }
        if later.is_some() {
            self.timers.set(Timer::Query(download), later);
            return;
        }
        debug_assert!(asking.want.download == download, "a wish is filed under its download");
        self.queries.number = self.queries.number.wrapping_add(1);
        let query = self.queries.number;
        asking.query = Some(query);
        asking.want.soon = false;
        let want = &asking.want;
        let newest = want.exclude.len().saturating_sub(EXCLUDED_MAX);
        let msg = ToCn::Query(Query {
            query,
            grant: want.grant.clone(),
            want: want.more,
            exclude: List::truncated(want.exclude[newest..].iter().copied()),
        });
        self.queries.recent.push_back(cx.now);
        self.timers.set(Timer::Query(download), Some(cx.now.after(cx.cfg.requery.1)));
        self.send(cx, msg);
    }

    /// Delivers the introductions that are valid: signed by a certified CN, in time, for this download, its version and
    /// its key.
    pub(super) fn introductions(&mut self, cx: &mut Context<'_>, answer: Introductions) {
        let Some(download) = self.queries.answered(answer.query) else { return };
        let Some(asking) = self.queries.wants.get_mut(&download) else { return };
        let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
        let now_ms = self.wall.at(cx.now);
        let want = &asking.want;
        let own = cx.cfg.upload_key;
        let mut peers = answer.peers.into_vec();
        peers.retain(|p| {
            let i = &p.intro.intro;
            let meant = i.download == download && i.version == want.version && i.downloader_key == want.download_key;
            meant && i.uploader_key != own && introductions::check(&trust, &p.intro, now_ms).is_ok()
        });
        let wait = if peers.is_empty() {
            asking.empty.failed(cx.cfg.requery, cx.rng)
        } else {
            asking.empty.succeeded();
            // with few known peers the next query comes soon: other clients may have begun the same download just now
            let known = want.exclude.len() + peers.len();
            if known < cx.cfg.few_peers as usize { jittered(cx.cfg.requery.0, cx.rng) } else { cx.cfg.requery_known }
        };
        self.timers.set(Timer::Query(download), Some(cx.now.after(wait)));
        if !peers.is_empty() {
            cx.push(Output::Introduced { download, peers });
        }
    }

    pub(super) fn query_failed(&mut self, cx: &mut Context<'_>, failed: &QueryFailed) {
        let Some(download) = self.queries.answered(failed.query) else { return };
        let Some(asking) = self.queries.wants.get_mut(&download) else { return };
        if failed.why != QueryError::Regrant {
            cx.push(Output::NoPeers { download, why: failed.why });
        }
        match failed.why {
            QueryError::Regrant => {
                asking.refused = true;
                self.timers.clear(Timer::Query(download));
                cx.push(Output::Regrant { download });
            }
            QueryError::NotYours | QueryError::PeersForbidden | QueryError::Withdrawn => {
                asking.refused = true;
                self.timers.clear(Timer::Query(download));
                cx.push(Output::PeersForbidden { download });
            }
            QueryError::TooMany
            | QueryError::Unavailable
            | QueryError::Unreceipted
            | QueryError::Limited
            | QueryError::NotShared
            | QueryError::Unreachable
            | QueryError::AllKnown
            | QueryError::OffersSpent => {
                let said = Duration::from_millis(u64::from(failed.retry_after_ms)).min(RETRY_MAX);
                let wait = said.max(asking.empty.failed(cx.cfg.requery, cx.rng));
                self.timers.set(Timer::Query(download), Some(cx.now.after(wait)));
            }
        }
    }
}
