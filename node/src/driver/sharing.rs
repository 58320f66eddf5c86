//! Other people, asked and changed by people: cards, contacts, and who takes part in a folder.

use meshwork_host::swarm::Address;
use meshwork_protocol::{
    contact::{self, CardDevice, CardError, Invitation},
    control::{self, Role},
    id::{DeviceId, MeshId, ObjectId},
    limits,
    pairing::is_name,
};
use meshwork_replica::{
    graph::Contact as Entry,
    replica::{AuthorError, Replica},
};

use super::{
    Driver,
    command::{Reply, answer, internal, no_mesh},
};
use crate::{
    api::types::{Accept, Card, Contact, ContactAdd, Folder, Member, Shared},
    resource::ResourceError,
};

/// What is asked about other people.
pub(crate) enum Ask {
    Card(Reply<Card>),
    CardName { name: String, reply: Reply<Card> },
    Contacts(Reply<Vec<Contact>>),
    ContactAdd { add: ContactAdd, reply: Reply<Contact> },
    ContactRemove { name: String, reply: Reply<()> },
    Members { folder: String, reply: Reply<Vec<Member>> },
    Share { folder: String, person: String, role: String, reply: Reply<Shared> },
    Unshare { folder: String, person: String, reply: Reply<()> },
    Accept { accept: Accept, reply: Reply<Folder> },
    Leave { folder: String, reply: Reply<()> },
}

/// The setting that holds what the person of a mesh calls himself.
const PERSON: &str = "person.name";

impl Driver {
    pub(super) fn on_sharing(&mut self, ask: Ask) {
        match ask {
            Ask::Card(reply) => {
                let card = self.ensure_mesh().and_then(|()| self.card());
                answer(reply, card.map(|card| shown(&card)));
            }
            Ask::CardName { name, reply } => answer(reply, self.name_person(&name)),
            Ask::Contacts(reply) => answer(reply, Ok(self.contacts())),
            Ask::ContactAdd { add, reply } => answer(reply, self.contact_add(&add)),
            Ask::ContactRemove { name, reply } => answer(reply, self.contact_remove(&name)),
            Ask::Members { folder, reply } => answer(reply, self.members(&folder)),
            Ask::Share { folder, person, role, reply } => answer(reply, self.share(&folder, &person, &role)),
            Ask::Unshare { folder, person, reply } => answer(reply, self.unshare(&folder, &person)),
            Ask::Accept { accept, reply } => answer(reply, self.accept(&accept)),
            Ask::Leave { folder, reply } => answer(reply, self.leave(&folder)),
        }
    }

    /// This mesh as a card: this device and others whose addresses are known.
    fn card(&self) -> Result<contact::Card, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let own =
            CardDevice { device: self.network.device(), addresses: self.listening_addresses(limits::PAIR_ADDRESSES) };
        let known = |device: DeviceId| {
            let addresses = self.known.of(device);
            let addresses: Vec<String> =
                Address::most_useful(&addresses).into_iter().map(ToString::to_string).collect();
            CardDevice { device, addresses }
        };
        let others = replica.control().devices(replica.mesh_id()).into_iter();
        let others = others.map(|(device, _)| device).filter(|device| *device != own.device).map(known);
        let others = others.filter(|device| !device.addresses.is_empty());
        let named = replica.graph().setting(PERSON).and_then(|name| String::from_utf8(name).ok());
        Ok(contact::Card {
            mesh: replica.mesh_id(),
            name: named.filter(|name| is_name(name)).unwrap_or_else(|| self.own_name.clone()),
            devices: std::iter::once(own.clone()).chain(others).take(limits::CARD_DEVICES).collect(),
        })
    }

    fn name_person(&mut self, name: &str) -> Result<Card, ResourceError> {
        check_name(name)?;
        self.ensure_mesh()?;
        self.ask_replica(|replica, rng| replica.put_setting(rng, PERSON, Some(name.as_bytes().to_vec())))
            .map_err(internal)?;
        self.card().map(|card| shown(&card))
    }

    fn contacts(&self) -> Vec<Contact> {
        let Some(replica) = &self.replica else { return Vec::new() };
        replica.graph().contacts().into_iter().map(|(person, entry)| self.contact(replica, person, entry)).collect()
    }

    fn contact(&self, replica: &Replica, person: MeshId, entry: Entry) -> Contact {
        let devices = replica.control().devices(person).into_iter().map(|(device, _)| device);
        let hinted = entry.devices.iter().map(|known| known.device);
        let connected = devices.chain(hinted).any(|device| self.peers.is_connected(device));
        let takes_part = |object: &ObjectId| replica.role_of(*object, person).is_some();
        let shared = self.folder_ids().into_iter().filter(takes_part).map(|object| self.title_of(object)).collect();
        Contact { person: person.to_string(), name: entry.name, connected, shared }
    }

    fn contact_add(&mut self, add: &ContactAdd) -> Result<Contact, ResourceError> {
        let card = contact::Card::parse(&add.link).map_err(|error| bad_link(&error, "mesh contact card"))?;
        if let Some(name) = &add.name {
            check_name(name)?;
        }
        self.ensure_mesh()?;
        let person = card.mesh;
        let entry = self.take_card(&card, add.name.as_deref())?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        Ok(self.contact(replica, person, entry))
    }

    /// Enters whoever made a card among the contacts, or what is new on it.
    fn take_card(&mut self, card: &contact::Card, name: Option<&str>) -> Result<Entry, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        if card.mesh == replica.mesh_id() {
            return Err(ResourceError::new(
                409,
                "own_card",
                "This link was made by your own mesh.",
                "Give it to the other person, and take the one that he gives you.",
            ));
        }
        let mut contacts = replica.graph().contacts();
        let known = contacts.remove(&card.mesh);
        let taken = |name: &str| contacts.values().any(|other| other.name == name);
        let wanted = name.map(str::to_owned).or(known.map(|known| known.name)).unwrap_or_else(|| card.name.clone());
        if taken(&wanted) {
            return Err(ResourceError::new(
                409,
                "name_taken",
                format!("You have another contact named {wanted} already."),
                "Choose another name with --name.",
            ));
        }
        let entry = Entry { name: wanted, devices: card.devices.clone() };
        for known in &card.devices {
            let addresses: Vec<Address> = known.addresses.iter().filter_map(|text| text.parse().ok()).collect();
            self.known.remember(known.device, &addresses);
        }
        let person = card.mesh;
        self.ask_replica(|replica, rng| replica.put_contact(rng, person, &entry)).map_err(internal)?;
        Ok(entry)
    }

    fn contact_remove(&mut self, name: &str) -> Result<(), ResourceError> {
        let person = self.find_person(name)?;
        self.ask_replica(|replica, rng| replica.remove_contact(rng, person)).map_err(internal)
    }

    fn members(&self, folder: &str) -> Result<Vec<Member>, ResourceError> {
        let object = self.find_folder(folder)?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let member = |(person, role, met): (MeshId, Role, bool)| Member {
            person: person.to_string(),
            name: self.person_name(person),
            role: super::authority::object_role(role).to_owned(),
            here: person == replica.mesh_id(),
            pending: !met,
        };
        Ok(replica.persons(object).into_iter().map(member).collect())
    }

    fn share(&mut self, folder: &str, person: &str, role: &str) -> Result<Shared, ResourceError> {
        let role = parse_role(role)?;
        let object = self.find_folder(folder)?;
        let person = self.find_person(person)?;
        self.ask_replica(|replica, rng| replica.share(rng, object, person, role)).map_err(not_allowed)?;
        let (title, name) = (self.title_of(object), self.person_name(person));
        let link = Invitation { object, title: title.clone(), from: self.card()? }.to_text();
        let role = super::authority::object_role(role).to_owned();
        Ok(Shared { folder: object.to_string(), title, name, role, link })
    }

    fn unshare(&mut self, folder: &str, person: &str) -> Result<(), ResourceError> {
        let object = self.find_folder(folder)?;
        let person = self.find_person(person)?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        if replica.role_of(object, person).is_none() {
            return Err(ResourceError::not_found(
                format!("{} takes no part in {}.", self.person_name(person), self.title_of(object)),
                "`mesh members FOLDER` shows who does.",
            ));
        }
        self.ask_replica(|replica, rng| replica.unshare(rng, object, person)).map_err(not_allowed)
    }

    fn accept(&mut self, accept: &Accept) -> Result<Folder, ResourceError> {
        let invitation = Invitation::parse(&accept.link).map_err(|error| bad_link(&error, "mesh share"))?;
        let title = accept.title.clone().unwrap_or_else(|| invitation.title.clone());
        check_name(&title)?;
        let object = invitation.object;
        self.check_title_free(&title, Some(object))?;
        self.ensure_mesh()?;
        let from = &invitation.from;
        let named =
            self.contacts().iter().any(|known| known.name == from.name && known.person != from.mesh.to_string());
        let unlike = named.then(|| format!("{} {}", from.name, from.mesh.short()));
        self.take_card(from, unlike.as_deref())?;
        let owner = from.mesh;
        self.ask_replica(|replica, rng| replica.accept(rng, object, owner, &title)).map_err(internal)?;
        Ok(self.folder_of(object))
    }

    fn leave(&mut self, folder: &str) -> Result<(), ResourceError> {
        let object = self.find_folder(folder)?;
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        if replica.owner_of(object) == Some(replica.mesh_id()) {
            return Err(ResourceError::new(
                409,
                "own_folder",
                format!("{folder} is this mesh's own; its owner cannot leave it."),
                "Take others out of it with `mesh unshare`.",
            ));
        }
        self.ask_replica(|replica, rng| replica.leave(rng, object)).map_err(not_allowed)
    }

    /// What a person is called here.
    pub(super) fn person_name(&self, person: MeshId) -> String {
        let Some(replica) = &self.replica else { return person.short() };
        if person == replica.mesh_id() {
            return "you".to_owned();
        }
        replica.graph().contact(person).map_or_else(|| person.short(), |entry| entry.name)
    }

    /// The contact, or other person with a role in a folder, with this name, or whose id begins so.
    pub(super) fn find_person(&self, name: &str) -> Result<MeshId, ResourceError> {
        let replica = self.replica.as_ref().ok_or_else(no_mesh)?;
        let members = self.folder_ids().into_iter().flat_map(|object| replica.persons(object));
        let known = replica.graph().contacts().into_keys().chain(members.map(|(person, ..)| person));
        let is_meant = |person: &MeshId| {
            *person != replica.mesh_id()
                && (self.person_name(*person) == name || name.len() >= 8 && person.to_string().starts_with(name))
        };
        let found: std::collections::BTreeSet<MeshId> = known.filter(is_meant).collect();
        match found.iter().collect::<Vec<_>>().as_slice() {
            [person] => Ok(**person),
            [] => Err(ResourceError::not_found(
                format!("You have no contact named {name}."),
                "`mesh contact ls` shows them; `mesh contact add LINK` adds whoever gave you a link.",
            )),
            _ => Err(ResourceError::new(
                409,
                "ambiguous",
                format!("Several persons are named {name}."),
                "Name the one by its id, from `mesh --json contact ls`.",
            )),
        }
    }
}

fn shown(card: &contact::Card) -> Card {
    Card { name: card.name.clone(), link: card.to_text() }
}

fn check_name(name: &str) -> Result<(), ResourceError> {
    if is_name(name) {
        return Ok(());
    }
    Err(ResourceError::bad_request("A name has 1 to 64 bytes and no control characters.", "Choose another one."))
}

fn parse_role(role: &str) -> Result<Role, ResourceError> {
    match role {
        "own" => Ok(Role::Own),
        "invite" => Ok(Role::Invite),
        "edit" => Ok(Role::Edit),
        "read" => Ok(Role::Read),
        other => Err(ResourceError::bad_request(
            format!("There is no role {other:?}."),
            "The roles are read, edit, invite (edit, and let others in) and own.",
        )),
    }
}

fn bad_link(error: &CardError, command: &str) -> ResourceError {
    ResourceError::new(422, "bad_link", format!("{error}."), format!("Copy the whole link that `{command}` shows."))
}

fn not_allowed(error: AuthorError) -> ResourceError {
    match error {
        AuthorError::NotSenior | AuthorError::Author(control::AuthorError::NotPermitted) => ResourceError::new(
            403,
            "not_permitted",
            "Your role in this folder does not permit that.",
            "Ask its owner; `mesh members FOLDER` shows who has which role.",
        ),
        AuthorError::NotMember | AuthorError::Author(control::AuthorError::NotMember) => ResourceError::new(
            403,
            "not_member",
            "You have no role in this folder (yet).",
            "If it was just shared with you, wait until a device of its owner is connected.",
        ),
        error => internal(error),
    }
}
