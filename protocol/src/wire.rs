//! What travels between devices: one file per stream protocol.
//!
//! A stream carries frames: the length as four bytes, big-endian, then that many bytes of strict DAG-CBOR. The limit of
//! a frame depends on the protocol and is checked before anything is allocated.

pub mod admission;
pub mod capability;
pub mod chunks;
pub mod pair;
pub mod rendezvous;
pub mod restore;
pub mod sync;
pub mod tunnel;

/// Control stream between two devices that know each other.
pub const CONTROL: &str = "/meshwork/control/1";
/// Chunks of file contents.
pub const CHUNKS: &str = "/meshwork/chunks/1";
/// Pairing of a new device.
pub const PAIR: &str = "/meshwork/pair/1";
/// A channel of a relay's data port: the request is the device id of the other end, the answer as
/// [`splice::answer`](crate::splice::answer) says. No frames.
pub const SPLICE: &str = "/meshwork/splice/1";
/// A blank device that has the recovery phrase.
pub const RESTORE: &str = "/meshwork/restore/1";
/// Words of 8 bytes that come back as they were sent, at most [`limits::PINGS`](crate::limits::PINGS). No frames.
pub const PING: &str = "/meshwork/ping/1";
/// A connection to a service of a device.
pub const TUNNEL: &str = "/meshwork/tunnel/1";
/// A ticket that a device shows a relay.
pub const ADMISSION: &str = "/meshwork/admission/1";
/// Questions of a device to a bootstrap.
pub const RENDEZVOUS: &str = "/meshwork/rendezvous/1";
