//! The network beneath the driver: streams of chunks and the connections that carry them.

pub use meshwork_host::frame;

pub mod bulk;
pub mod fetch;
pub mod ping;
pub mod rendezvous;
pub mod restore;
pub mod serve;
pub mod splice;
pub mod tunnel;

#[cfg(test)]
mod measure;
