//! Services of devices, and the local ports that lead to them.

use serde::{Deserialize, Serialize};

/// A service of a device: an element of `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Id of the device.
    pub device: String,
    /// What the device is called.
    pub device_name: String,
    /// What the device calls the service.
    pub name: String,
    /// Whether it is a service of the device that answers.
    pub here: bool,
    /// Where its connections go, as that device reaches it; only for a service of the device that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Who uses it now; only for a service of the device that answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<ServiceUser>,
    /// To whom it was given, beside the devices of the mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted: Vec<ServiceGrant>,
}

/// An open tunnel to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUser {
    /// Id of the device at its other end.
    pub device: String,
    /// What that is called.
    pub name: String,
    /// Since when, in milliseconds since the epoch.
    pub since: u64,
}

/// Another person who may use a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceGrant {
    /// Id of the person's mesh.
    pub person: String,
    /// What the person is called here.
    pub name: String,
    /// Until when, in milliseconds since the epoch.
    pub until: u64,
}

/// `POST /v1/services`: offers a service of this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceOffer {
    /// 1 to 64 of `a` to `z`, `0` to `9`, dot, hyphen and underscore.
    pub name: String,
    /// A port of this device, or `host:port`.
    pub target: String,
}

/// `PUT /v1/services/{name}/grants/{contact}`: lets a contact use a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceGive {
    /// For how long, 1 to 30 days.
    #[serde(default = "month")]
    pub days: u32,
}

fn month() -> u32 {
    30
}

/// A local port that leads to a service: an element of `GET /v1/tunnels`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Where programs on this device connect to.
    pub address: String,
    /// Its port, which names it.
    pub port: u16,
    /// Id of the device that it leads to.
    pub device: String,
    /// What that is called.
    pub device_name: String,
    /// What that calls the service.
    pub service: String,
    /// Connections that are open through it.
    pub open: usize,
    /// What went wrong with the last connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `POST /v1/tunnels`: opens a local port that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelOpen {
    /// Name of the device, or how its id begins.
    pub device: String,
    /// What it calls the service.
    pub service: String,
    /// The local port; 0 for one that is free.
    #[serde(default)]
    pub port: u16,
}
