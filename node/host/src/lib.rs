//! What every Meshwork process is: an identity, a network swarm, configuration, telemetry, health,
//! and a supervised life from start to a clean stop.

pub mod address;
pub mod clock;
pub mod config;
pub mod entropy;
pub mod fault;
pub mod frame;
pub mod health;
pub mod identity;
pub mod memory;
pub mod program;
pub mod supervise;
pub mod swarm;
pub mod telemetry;
