//! The simulation: several replicas of one mesh, with network, disks and users in memory, from one seed.

pub mod device;
pub mod disk;
pub mod fate;
pub mod judge;
pub mod malice;
pub mod network;
pub mod planted;
pub mod world;
