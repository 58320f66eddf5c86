//! `mesh contact`, `mesh share`, `mesh unshare`, `mesh members`, `mesh accept` and `mesh leave`: other people.

use super::{
    Context, absolute_text,
    arguments::{Accept, Contact, Leave, Share, Unshare},
    error::CliError,
    folder::{get_when_known, word},
    pair::confirm,
    screen::{columns, short},
};
use crate::api::types;

pub(super) async fn contact(context: &mut Context, command: Contact) -> Result<(), CliError> {
    match command {
        Contact::Card { name } => card(context, name.as_deref()).await,
        Contact::Add { link, name } => {
            let contact = context.client.contact_add(&types::ContactAdd { link, name }).await?;
            if context.screen.json {
                return context.screen.value(&contact);
            }
            let name = word(&contact.name);
            context.screen.line(format!("{} is a contact of yours.", contact.name))?;
            context.screen.line(format!("  share a folder:  mesh share FOLDER --with {name}"))
        }
        Contact::Ls => ls(context).await,
        Contact::Remove { name } => {
            let done = context.client.contact_remove(&name).await?;
            if context.screen.json {
                return context.screen.value(&done);
            }
            context.screen.line(format!("{name} is no contact of yours any more. What you share stays shared."))
        }
    }
}

async fn card(context: &mut Context, name: Option<&str>) -> Result<(), CliError> {
    let card = match name {
        Some(name) => context.client.card_name(name).await?,
        None => context.client.card().await?,
    };
    if context.screen.json {
        return context.screen.value(&card);
    }
    context.screen.line(format!("You are {} to others. Give this link to whom you trust with it:", card.name))?;
    context.screen.line(format!("  {}", card.link))?;
    context.screen.line("Who has it can share with you. It opens nothing of yours.")
}

async fn ls(context: &mut Context) -> Result<(), CliError> {
    let contacts = context.client.contacts().await?;
    if context.screen.json {
        return contacts.iter().try_for_each(|contact| context.screen.value(contact));
    }
    if contacts.is_empty() {
        return context.screen.note("You have no contacts yet. Exchange links: `mesh contact card` shows yours.");
    }
    let rows: Vec<[String; 4]> = contacts
        .into_iter()
        .map(|contact| {
            let connected = if contact.connected { "connected" } else { "" };
            let shared =
                if contact.shared.is_empty() { "nothing shared".to_owned() } else { contact.shared.join(", ") };
            [contact.name, short(&contact.person).to_owned(), connected.to_owned(), shared]
        })
        .collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}

pub(super) async fn share(context: &mut Context, share: &Share) -> Result<(), CliError> {
    let shared = context.client.share(&share.folder, &share.with, &share.role).await?;
    if context.screen.json {
        return context.screen.value(&shared);
    }
    let may = match shared.role.as_str() {
        "read" => "may read",
        "edit" => "may read and change",
        "invite" => "may read and change, and let others into",
        _ => "owns, together with you,",
    };
    context.screen.line(format!("{} {may} {:?}. Give this link to {}:", shared.name, shared.title, shared.name))?;
    context.screen.line(format!("  {}", shared.link))?;
    context.screen.line("  which is taken with:  mesh accept LINK PATH")
}

pub(super) async fn unshare(context: &mut Context, unshare: &Unshare) -> Result<(), CliError> {
    let Unshare { folder, with, yes } = unshare;
    if !yes && !context.screen.json {
        context.screen.line(format!("{with} will be sent nothing of {folder} any more, and its key changes."))?;
        context
            .screen
            .line(format!("What {with} wrote so far stays, and what {with} holds already cannot be taken back."))?;
        confirm(context, &format!("Take {with} out of {folder}?"), "Answer y to do it.").await?;
    }
    let done = context.client.unshare(folder, with).await?;
    if context.screen.json {
        return context.screen.value(&done);
    }
    context.screen.line(format!("{with} takes no part in {folder} any more."))
}

pub(super) async fn members(context: &mut Context, folder: &str) -> Result<(), CliError> {
    let members = context.client.members(folder).await?;
    if context.screen.json {
        return members.iter().try_for_each(|member| context.screen.value(member));
    }
    let rows: Vec<[String; 4]> = members
        .into_iter()
        .map(|member| {
            let pending = if member.pending { "not met yet" } else { "" };
            [member.name, short(&member.person).to_owned(), member.role, pending.to_owned()]
        })
        .collect();
    columns(&rows).iter().try_for_each(|line| context.screen.line(line))
}

pub(super) async fn accept(context: &mut Context, accept: Accept) -> Result<(), CliError> {
    let path = accept.path.as_deref().map(absolute_text).transpose()?;
    let folder = context.client.accept(&types::Accept { link: accept.link, title: accept.name }).await?;
    let folder = match &path {
        Some(path) => get_when_known(context, &folder.id, path).await?,
        None => folder,
    };
    if context.screen.json {
        return context.screen.value(&folder);
    }
    let title = word(&folder.title);
    match path {
        Some(path) => {
            context.screen.line(format!("{:?} comes to {path}.", folder.title))?;
            context.screen.line(format!("  how far it is:  mesh folder status {title}"))
        }
        None => {
            context.screen.line(format!("{:?} is among your folders.", folder.title))?;
            context.screen.line(format!("  have it here:  mesh folder get {title} PATH"))
        }
    }
}

pub(super) async fn leave(context: &mut Context, leave: &Leave) -> Result<(), CliError> {
    let Leave { folder, yes } = leave;
    if !yes && !context.screen.json {
        context.screen.line(format!("All your devices will take no part in {folder} any more; files on them stay."))?;
        confirm(context, &format!("Leave {folder}?"), "Answer y to do it.").await?;
    }
    let done = context.client.leave(folder).await?;
    if context.screen.json {
        return context.screen.value(&done);
    }
    context.screen.line(format!("You left {folder}. The files stay where they are."))
}
