//! Contacts, members and invitations.

use serde::{Deserialize, Serialize};

/// `GET` and `PUT /v1/card`: who this mesh is, for other people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What its person calls himself.
    pub name: String,
    /// The link to be given to others.
    pub link: String,
}

/// `PUT /v1/card`: what this mesh's person calls himself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardName {
    /// 1 to 64 bytes.
    pub name: String,
}

/// Another person: an element of `GET /v1/contacts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Id of his mesh.
    pub person: String,
    /// What he is called here.
    pub name: String,
    /// Whether a device of his is connected.
    pub connected: bool,
    /// Titles of what is shared with him.
    pub shared: Vec<String>,
}

/// `POST /v1/contacts`: make a contact of whoever made a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactAdd {
    /// The link that `mesh contact card` shows.
    pub link: String,
    /// What to call him; his own name for himself when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A person with a role in a folder: an element of `GET /v1/folders/{title or id}/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of his mesh.
    pub person: String,
    /// What he is called here.
    pub name: String,
    /// `own`, `invite`, `edit` or `read`.
    pub role: String,
    /// Whether this is the own mesh.
    pub here: bool,
    /// Whether no device of his has been met yet.
    pub pending: bool,
}

/// `PUT /v1/folders/{title or id}/members/{contact}`: give a person a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// `own`, `invite`, `edit` or `read`.
    pub role: String,
}

/// An invitation: the answer to [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Id of the folder.
    pub folder: String,
    /// Its title.
    pub title: String,
    /// Name of the person.
    pub name: String,
    /// His role.
    pub role: String,
    /// The link to be given to him.
    pub link: String,
}

/// `POST /v1/invitations`: take part in what another person shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// The link that `mesh share` showed.
    pub link: String,
    /// Title here; the owner's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}
