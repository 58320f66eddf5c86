//! The rules of a router, by kind.

/// What stands between a host and the public net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Open,
    /// Public addresses behind a stateful firewall.
    Firewall,
    /// Anybody may answer.
    FullCone,
    /// Addresses that were sent to may answer.
    AddrRestricted,
    /// Only the very address and port that were sent to may answer.
    PortRestricted,
    /// Plain masquerade, which keeps the port when it is free.
    Linux,
    /// Another random port for every destination.
    Symmetric,
    /// A home router behind one of the carrier.
    Cgnat,
    /// TCP alone.
    UdpBlocked,
    /// TCP to the relay alone.
    RelayOnly,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 10] = [
        Kind::Open,
        Kind::Firewall,
        Kind::FullCone,
        Kind::AddrRestricted,
        Kind::PortRestricted,
        Kind::Linux,
        Kind::Symmetric,
        Kind::Cgnat,
        Kind::UdpBlocked,
        Kind::RelayOnly,
    ];
}

/// The nftables rules of a router that is seen as `outside`.
pub(super) fn rules(kind: Kind, outside: &str, relay: &str) -> String {
    let forbidden = match kind {
        Kind::UdpBlocked => "iifname lan meta l4proto udp drop".to_owned(),
        Kind::RelayOnly => format!("iifname lan ip daddr != {relay} drop; iifname lan meta l4proto != tcp drop"),
        _ => String::new(),
    };
    let firewall = format!(
        "table inet firewall {{
         chain input {{ type filter hook input priority 0; policy drop; ct state established,related accept; iifname lan accept; meta l4proto ipv6-icmp accept; }}
         chain forward {{ type filter hook forward priority 0; policy drop; {forbidden}
          ct state established,related accept; iifname lan oifname wan accept; ct status dnat accept; }}
         }}\n"
    );
    firewall + &translation(kind, outside)
}

/// What a router that is seen as `outside` needs besides for its own hosts to reach each other there.
pub(super) fn hairpin(outside: &str) -> String {
    format!(
        "table ip translation {{
         chain hairpin-in {{ type nat hook prerouting priority -90; iifname lan ip daddr {outside} dnat ip to meta l4proto . th dport map @inside
         }}
         chain hairpin-out {{ type nat hook postrouting priority 90; oifname lan ct status dnat {}
         }}
         }}",
        hashed(outside)
    )
}

/// A hash of the inside address and port is the same outside port for every destination.
fn hashed(outside: &str) -> String {
    format!(
        "meta l4proto {{ tcp, udp }} snat to {outside}:jhash ip saddr . th sport mod 40000 seed 0x6d657368 offset 20000"
    )
}

fn translation(kind: Kind, outside: &str) -> String {
    let hashed = format!("oifname wan {}", hashed(outside));
    let (source, answers) = match kind {
        Kind::Open | Kind::Firewall => return String::new(),
        Kind::Linux => ("oifname wan masquerade".to_owned(), ""),
        Kind::Symmetric => ("oifname wan masquerade fully-random".to_owned(), ""),
        Kind::FullCone => (hashed, "iifname wan dnat ip to meta l4proto . th dport map @inside"),
        Kind::AddrRestricted => (
            hashed,
            "iifname wan meta l4proto . th dport . ip saddr @sent dnat ip to meta l4proto . th dport map @inside",
        ),
        _ => (hashed, ""),
    };
    format!(
        "table ip translation {{
         map inside {{ type inet_proto . inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; size 65535; }}
         set sent {{ type inet_proto . inet_service . ipv4_addr; flags dynamic,timeout; timeout 300s; size 65535; }}
         chain before {{ type nat hook prerouting priority -100; {answers}
         }}
         chain after {{ type nat hook postrouting priority 100; {source}
         }}
         chain learn {{ type filter hook postrouting priority 150;
          oifname wan meta l4proto {{ tcp, udp }} ct direction original update @inside {{ meta l4proto . th sport : ct original ip saddr . ct original proto-src }}
          oifname wan meta l4proto {{ tcp, udp }} update @sent {{ meta l4proto . th sport . ip daddr }}
         }}
         }}"
    )
}

/// Where miniupnpd enters what it forwards. What came in so is let through by the firewall.
pub(super) const FORWARDED: &str = "table inet forwarded {
 chain forward { type filter hook forward priority 0; jump forward_asked; }
 chain forward_asked { }
 chain before { type nat hook prerouting priority -100; jump before_asked; }
 chain before_asked { }
 chain after { type nat hook postrouting priority 100; jump after_asked; }
 chain after_asked { }
 }";

/// The configuration of miniupnpd.
pub(super) const MINIUPNPD: &str = "ext_ifname=wan
listening_ip=lan
enable_natpmp=no
secure_mode=yes
upnp_table_name=forwarded
upnp_nat_table_name=forwarded
upnp_forward_chain=forward_asked
upnp_nat_chain=before_asked
upnp_nat_postrouting_chain=after_asked
uuid=4d657368-776f-726b-6c61-620000000001
allow 1024-65535 192.168.0.0/16 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";
