//! The network beneath the driver: streams of chunks and the connections that carry them.

pub mod bulk;
pub mod fetch;
pub mod frame;
pub mod ping;
pub mod restore;
pub mod serve;
pub mod splice;
pub mod tunnel;

#[cfg(test)]
mod measure;
