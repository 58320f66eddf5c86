//! What stands in a graph: five flat maps, made by a fixed first change, with encoded values.

use std::collections::BTreeMap;

use automerge::{ActorId, Change, ExpandedChange, ObjId, ObjType, legacy};
use meshwork_protocol::{
    codec,
    contact::CardDevice,
    id::{DeviceId, MeshId, ObjectId},
    limits, wire_struct,
};

use super::ChangeError;

/// The author of the first change: nobody.
const NOBODY: [u8; 32] = [0; 32];
const FIRST_COUNTER: u64 = 1;

/// A map of the graph. The order is that of their creation in the first change, which is part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Map {
    Devices,
    Mappings,
    Objects,
    Settings,
    Contacts,
}

impl Map {
    pub(super) const ALL: [Map; 5] = [Map::Devices, Map::Mappings, Map::Objects, Map::Settings, Map::Contacts];

    fn name(self) -> &'static str {
        match self {
            Map::Devices => "devices",
            Map::Mappings => "mappings",
            Map::Objects => "objects",
            Map::Settings => "settings",
            Map::Contacts => "contacts",
        }
    }

    /// The operation that made the map.
    fn counter(self) -> u64 {
        FIRST_COUNTER + self as u64
    }

    /// How the document names the map.
    pub(super) fn id(self) -> ObjId {
        ObjId::Id(self.counter(), ActorId::from(NOBODY), 0)
    }

    /// How a change names the map.
    pub(super) fn change_id(self) -> legacy::ObjectId {
        legacy::ObjectId::Id(legacy::OpId::new(self.counter(), &ActorId::from(NOBODY)))
    }

    pub(super) fn from_change_id(id: &legacy::ObjectId) -> Option<Self> {
        Self::ALL.into_iter().find(|map| map.change_id() == *id)
    }
}

/// The first change of every graph, the same everywhere and signed by nobody.
pub(super) fn first_change() -> Change {
    let make = |map: Map| legacy::Op {
        action: legacy::OpType::Make(ObjType::Map),
        obj: legacy::ObjectId::Root,
        key: legacy::Key::Map(map.name().into()),
        pred: legacy::SortedVec::new(),
        insert: false,
    };
    Change::from(ExpandedChange {
        operations: Map::ALL.into_iter().map(make).collect(),
        actor_id: ActorId::from(NOBODY),
        hash: None,
        seq: 1,
        start_op: std::num::NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    })
}

/// A device as its mesh knows it. Names are not in the control log, which helpers hold in clear, but here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// 0 full, 1 storage, 2 relay, 3 browser.
    pub kind: u8,
}
wire_struct!(Device { name, kind });

/// An object as its mesh knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// 1 folder.
    pub kind: u8,
    /// What it is called.
    pub title: String,
    /// Whose it is: the own mesh, or that of the person who shares it.
    pub owner: MeshId,
}
wire_struct!(Object { kind, title, owner });

/// Another person, as this mesh knows him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// What he is called here.
    pub name: String,
    /// Devices that his card named: where to look for him until the control log of his mesh says more.
    pub devices: Vec<CardDevice>,
}
wire_struct!(Contact { name, devices });

/// That a device holds an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// 0 the whole content, kept current; other values are kept as they are.
    pub mode: u8,
}
wire_struct!(Mapping { mode });

/// A change to a graph. All entries of one edit appear together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit(pub(super) BTreeMap<(Map, String), Option<Vec<u8>>>);

impl Edit {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters or overwrites a device.
    pub fn put_device(self, device: DeviceId, entry: &Device) -> Self {
        self.with(Map::Devices, device.to_string(), Some(codec::encode(entry)))
    }

    /// Removes a device.
    pub fn remove_device(self, device: DeviceId) -> Self {
        self.with(Map::Devices, device.to_string(), None)
    }

    /// Enters or overwrites an object.
    pub fn put_object(self, object: ObjectId, entry: &Object) -> Self {
        self.with(Map::Objects, object.to_string(), Some(codec::encode(entry)))
    }

    /// Removes an object.
    pub fn remove_object(self, object: ObjectId) -> Self {
        self.with(Map::Objects, object.to_string(), None)
    }

    /// Enters or overwrites that `device` holds `object`.
    pub fn put_mapping(self, object: ObjectId, device: DeviceId, entry: &Mapping) -> Self {
        self.with(Map::Mappings, mapping_key(object, device), Some(codec::encode(entry)))
    }

    /// Removes that `device` holds `object`.
    pub fn remove_mapping(self, object: ObjectId, device: DeviceId) -> Self {
        self.with(Map::Mappings, mapping_key(object, device), None)
    }

    /// Enters or overwrites a contact.
    pub fn put_contact(self, mesh: MeshId, entry: &Contact) -> Self {
        self.with(Map::Contacts, mesh.to_string(), Some(codec::encode(entry)))
    }

    /// Removes a contact.
    pub fn remove_contact(self, mesh: MeshId) -> Self {
        self.with(Map::Contacts, mesh.to_string(), None)
    }

    /// Enters or overwrites a setting; the value is opaque here.
    pub fn put_setting(self, name: &str, value: Vec<u8>) -> Self {
        self.with(Map::Settings, name.to_owned(), Some(value))
    }

    /// Removes a setting.
    pub fn remove_setting(self, name: &str) -> Self {
        self.with(Map::Settings, name.to_owned(), None)
    }

    fn with(mut self, map: Map, key: String, value: Option<Vec<u8>>) -> Self {
        self.0.insert((map, key), value);
        self
    }

    pub(super) fn check(&self) -> Result<(), ChangeError> {
        if self.0.len() > limits::GRAPH_OPERATIONS {
            return Err(ChangeError::Bound("operations"));
        }
        self.0.iter().try_for_each(|((_, key), value)| check_entry(key, value.as_deref()))
    }
}

/// The bounds of one entry, the same for own edits and those of others.
pub(super) fn check_entry(key: &str, value: Option<&[u8]>) -> Result<(), ChangeError> {
    if key.is_empty() || key.len() > limits::GRAPH_KEY {
        return Err(ChangeError::Bound("key bytes"));
    }
    if value.is_some_and(|value| value.len() > limits::GRAPH_VALUE) {
        return Err(ChangeError::Bound("value bytes"));
    }
    Ok(())
}

/// What a change did, for whoever shows a graph. Look the entry up to see what is there now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GraphEvent {
    /// The entry of a device.
    Device(DeviceId),
    /// The entry of an object.
    Object(ObjectId),
    /// The entry that a device holds an object.
    Mapping(ObjectId, DeviceId),
    /// A setting of this name.
    Setting(String),
    /// The entry of a contact.
    Contact(MeshId),
}

impl GraphEvent {
    /// `None` for a key that no view shows.
    pub(super) fn of(map: Map, key: &str) -> Option<Self> {
        match map {
            Map::Devices => parse_id(key).map(|id| GraphEvent::Device(DeviceId(id))),
            Map::Objects => parse_id(key).map(|id| GraphEvent::Object(ObjectId(id))),
            Map::Mappings => parse_mapping_key(key).map(|(object, device)| GraphEvent::Mapping(object, device)),
            Map::Settings => Some(GraphEvent::Setting(key.to_owned())),
            Map::Contacts => parse_id(key).map(|id| GraphEvent::Contact(MeshId(id))),
        }
    }
}

fn mapping_key(object: ObjectId, device: DeviceId) -> String {
    format!("{object}/{device}")
}

/// The keys of all mappings of an object: from the first to before the second.
pub(super) fn mapping_range(object: ObjectId) -> std::ops::Range<String> {
    // '0' follows '/'.
    format!("{object}/")..format!("{object}0")
}

pub(super) fn parse_mapping_key(key: &str) -> Option<(ObjectId, DeviceId)> {
    let (object, device) = key.split_once('/')?;
    Some((ObjectId(parse_id(object)?), DeviceId(parse_id(device)?)))
}

/// Only lower-case hex: one key for one id.
pub(super) fn parse_id(key: &str) -> Option<[u8; 32]> {
    if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    meshwork_protocol::id::unhex(key)?.try_into().ok()
}
