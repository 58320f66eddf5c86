//! Which connection to a peer stays when there are several.

use std::time::{Duration, Instant};

use libp2p::{Multiaddr, swarm::ConnectionId};

use crate::address::Path;

/// Two connections made within this time are taken for one meeting of both ends, or for two transports
/// of one dial, rather than for a peer that came back while its old connection is not yet seen dead.
const MEETING: Duration = Duration::from_secs(10);

/// A peer that dials this long after a connection with it came up has lost that one: while it has one it dials for nothing
/// but a better one.
const AGAIN: Duration = Duration::from_secs(2);

/// One established connection to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) connection: ConnectionId,
    /// Where the peer is; of one that called through a relay, where the relay is.
    pub(crate) address: Multiaddr,
    pub(crate) path: Path,
    pub(crate) dialled: bool,
    pub(crate) since: Instant,
}

/// The connection that stays, and that new streams use. Links are in the order in which they came up.
///
/// Only one of the two devices (the one with the smaller id) closes the others, because the two may
/// have seen the connections come up in different orders and would each close what the other keeps.
/// * Made at different times: the newest. The peer dialled again, so it no longer has the old one.
/// * Made together: a direct one rather than a relayed one, QUIC rather than TCP; then the one that was up first.
pub(crate) fn keeper(links: &[Link]) -> Option<&Link> {
    links.iter().reduce(|kept, link| {
        let came_back = is_back(kept, link);
        let again_from_same_end = kept.dialled == link.dialled && kept.path == link.path;
        if came_back || again_from_same_end || link.path.rank() < kept.path.rank() { link } else { kept }
    })
}

/// Whether the peer had lost all other connections when it made the newest, which is no better than they are.
pub(crate) fn came_back(links: &[Link]) -> bool {
    links.split_last().is_some_and(|(newest, before)| {
        let is_none = |link: &Link| is_back(link, newest) && newest.path.rank() >= link.path.rank();
        !newest.dialled && before.iter().all(is_none)
    })
}

fn is_back(before: &Link, link: &Link) -> bool {
    let apart = link.since.saturating_duration_since(before.since);
    apart >= if link.dialled { MEETING } else { AGAIN }
}

impl Path {
    /// What is better comes first.
    fn rank(self) -> u8 {
        match self {
            Path::Quic => 0,
            Path::Tcp => 1,
            Path::Relayed => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: usize, path: Path, dialled: bool, seconds: u64, start: Instant) -> Link {
        let since = start + Duration::from_secs(seconds);
        Link { connection: ConnectionId::new_unchecked(number), address: Multiaddr::empty(), path, dialled, since }
    }

    #[test]
    fn keeps_one_by_rule() {
        use Path::{Quic, Relayed, Tcp};
        let start = Instant::now();
        let kept = |links: &[Link]| keeper(links).map(|link| link.connection);
        let number = |number| Some(ConnectionId::new_unchecked(number));
        assert_eq!(kept(&[]), None);
        let both_dialled = [link(1, Quic, true, 0, start), link(2, Quic, false, 1, start)];
        assert_eq!(kept(&both_dialled), number(1));
        let peer_came_back = [link(1, Quic, true, 0, start), link(2, Quic, false, 60, start)];
        assert_eq!(kept(&peer_came_back), number(2));
        let peer_came_back_at_once = [link(1, Quic, false, 0, start), link(2, Quic, false, 1, start)];
        assert_eq!(kept(&peer_came_back_at_once), number(2));
        let better_transport = [link(1, Tcp, true, 0, start), link(2, Quic, true, 1, start)];
        assert_eq!(kept(&better_transport), number(2));
        let worse_transport = [link(1, Quic, true, 0, start), link(2, Tcp, true, 1, start)];
        assert_eq!(kept(&worse_transport), number(1));
        let udp_stopped_working = [link(1, Quic, true, 0, start), link(2, Tcp, false, 60, start)];
        assert_eq!(kept(&udp_stopped_working), number(2));
        let upgraded = [link(1, Relayed, true, 0, start), link(2, Tcp, false, 1, start)];
        assert_eq!(kept(&upgraded), number(2));
        let direct_was_first = [link(1, Tcp, true, 0, start), link(2, Relayed, false, 1, start)];
        assert_eq!(kept(&direct_was_first), number(1));
        let peer_went_elsewhere = [link(1, Quic, true, 0, start), link(2, Relayed, false, 2, start)];
        assert_eq!(kept(&peer_went_elsewhere), number(2));
        assert!(came_back(&peer_went_elsewhere) && came_back(&peer_came_back) && !came_back(&direct_was_first));
        let upgraded_late = [link(1, Relayed, true, 0, start), link(2, Tcp, false, 60, start)];
        assert!(!came_back(&upgraded_late) && !came_back(&better_transport));
        let direct_stopped_working = [link(1, Quic, true, 0, start), link(2, Relayed, false, 60, start)];
        assert_eq!(kept(&direct_stopped_working), number(2));
    }
}
