//! What a relay does beyond being a server of the network: its data port, and what its operator gets.

pub mod admission;
pub mod data;
pub mod service;
