//! The words of the command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  mesh up                        start this device's node in the background
  mesh folder add ~/Notes        share a directory with your devices
  mesh pair                      show a code that lets another device in
  mesh join 7-apple-river-stone  on that device: enter with the code
  mesh folder get Notes ~/Notes  on that device: have the folder here, too

Exit codes:
  0  done                  3  no node is running for this home
  1  failed                4  refused: by a person, by a rule, or a dead code
  2  wrong command line    5  what was named does not exist

The home is --home, else $MESH_HOME, else $XDG_STATE_HOME/meshwork, else ~/.local/state/meshwork.";

/// Your devices, one mesh: the same folders on all of them, with nobody in between.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Directory that holds everything the node keeps
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) home: Option<PathBuf>,
    /// Print data as JSON, one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Tell more (in the log of the node, too; twice for everything)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the node of this device; the first start creates everything it needs
    #[command(
        after_help = "Examples:\n  mesh up\n  mesh up --name laptop\n  mesh up --foreground --listen 0.0.0.0:4711\n  mesh up --install"
    )]
    Up(Up),
    /// Stop the node
    #[command(after_help = "Examples:\n  mesh down\n  mesh down --uninstall")]
    Down {
        /// Also take it from the services that start at login
        #[arg(long)]
        uninstall: bool,
    },
    /// Show this node, who is connected, and its folders
    #[command(after_help = "Examples:\n  mesh status\n  mesh status --json")]
    Status,
    /// Let a new device in: shows a code and a link
    #[command(after_help = "Examples:\n  mesh pair\n  mesh pair --yes --no-wait")]
    Pair(Pair),
    /// Enter the mesh of a device that shows a code
    #[command(
        after_help = "Examples:\n  mesh join 7-apple-river-stone\n  mesh join 7 apple river stone\n  mesh join 7-apple-river-stone --at 192.168.1.20:4711"
    )]
    Join(Join),
    /// List the devices of the mesh
    #[command(after_help = "Examples:\n  mesh devices\n  mesh devices --json")]
    Devices,
    /// Show by which way another device is reached, why by no better one, and how fast it answers
    #[command(after_help = "Examples:\n  mesh ping laptop\n  mesh ping laptop --json")]
    Ping {
        /// Name of the device, or how its id begins
        #[arg(value_name = "DEVICE")]
        device: String,
    },
    /// Remove a device or let it in again, make it an admin or a device like others
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh device remove old-phone\n  mesh device promote desktop\n  mesh device readmit old-phone"
    )]
    Device(Device),
    /// Show who did what, under which grant
    #[command(after_help = "Examples:\n  mesh log\n  mesh log --at 4")]
    Log(Log),
    /// Show who holds which right, and why
    #[command(subcommand, after_help = "Examples:\n  mesh cap ls\n  mesh cap explain desktop")]
    Cap(Cap),
    /// Show what devices wrote that does not stand, and take it over
    #[command(after_help = "Examples:\n  mesh quarantine\n  mesh quarantine adopt Notes")]
    Quarantine {
        #[command(subcommand)]
        command: Option<Quarantine>,
    },
    /// Share directories between your devices
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh folder add ~/Notes\n  mesh folder get Notes ~/Notes\n  mesh folder ls"
    )]
    Folder(Folder),
    /// Other people: your card for them, and theirs
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh contact card --name Ann\n  mesh contact add LINK\n  mesh contact ls"
    )]
    Contact(Contact),
    /// Relays: through them devices reach each other that cannot otherwise
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh relay add /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...\n  mesh relay ls"
    )]
    Relay(Relay),
    /// Bootstraps: there devices find each other that have moved
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh bootstrap add /ip4/192.0.2.8/tcp/4001/p2p/12D3Koo...\n  mesh bootstrap ls"
    )]
    Bootstrap(Bootstrap),
    /// Look at the network of this device: what is well, what is not, and what helps
    #[command(after_help = "Example:\n  mesh doctor")]
    Doctor,
    /// Services of your devices: ports that are reached through the mesh, wherever the devices are
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh service offer ssh 22\n  mesh service ls\n  mesh service grant ssh --to bo --days 7"
    )]
    Service(Service),
    /// Reach a service of another device at a port of this one
    #[command(
        after_help = "Examples:\n  mesh open laptop:ssh\n  mesh open laptop:ssh --local 2222 --background\n  ssh -o ProxyCommand='mesh open laptop:ssh --stdio' laptop\n  mesh open                      list the ports that are open"
    )]
    Open(Open),
    /// Close a port that `mesh open --background` opened
    #[command(after_help = "Example:\n  mesh close 2222")]
    Close {
        /// The port on this device
        #[arg(value_name = "PORT")]
        port: u16,
    },
    /// Share a folder with a contact: shows an invitation for them
    #[command(after_help = "Examples:\n  mesh share Trip --with bo\n  mesh share Trip --with bo --role read")]
    Share(Share),
    /// Take somebody out of a folder
    #[command(after_help = "Examples:\n  mesh unshare Trip --with bo\n  mesh unshare Trip --with bo --yes")]
    Unshare(Unshare),
    /// Show who takes part in a folder
    #[command(after_help = "Example:\n  mesh members Trip")]
    Members {
        /// Title or id of the folder
        #[arg(value_name = "FOLDER")]
        folder: String,
    },
    /// Take part in a folder that somebody shares with you
    #[command(after_help = "Examples:\n  mesh accept LINK\n  mesh accept LINK ~/Trip")]
    Accept(Accept),
    /// Take no part any more in a folder that somebody shares with you
    #[command(after_help = "Examples:\n  mesh leave Trip\n  mesh leave Trip --yes")]
    Leave(Leave),
    /// Show what happens, as it happens
    #[command(after_help = "Examples:\n  mesh watch\n  mesh watch --since 0 --json")]
    Watch(Watch),
    /// The phrase that owns your mesh: write it down, and use it when a device is lost
    #[command(
        subcommand,
        after_help = "Examples:\n  mesh recovery write\n  mesh recovery confirm\n  mesh recovery restore"
    )]
    Recovery(Recovery),
    /// Show it all on this machine: two devices in temporary homes, one folder
    #[command(after_help = "Examples:\n  mesh demo\n  mesh demo --once")]
    Demo(Demo),
    /// Be the node (what `up` runs)
    #[command(hide = true)]
    Daemon(Daemon),
}

/// How a node is started.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Node {
    /// Listen here, TCP and UDP (port 0: any); may be given several times
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Vec<SocketAddr>,
    /// Do not look for devices on the local network
    #[arg(long)]
    pub(super) no_mdns: bool,
    /// Do not ask the router to forward the node's port (UPnP)
    #[arg(long)]
    pub(super) no_upnp: bool,
    /// Name of this device [default: the name of the host]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub(super) foreground: bool,
    /// Have systemd start it at each login, and now
    #[arg(long, conflicts_with = "foreground")]
    pub(super) install: bool,
    #[command(flatten)]
    pub(super) node: Node,
}

#[derive(Debug, Args)]
pub(super) struct Daemon {
    /// Leave the terminal of whoever started it
    #[arg(long)]
    pub(super) detach: bool,
    /// Stop when standard input ends
    #[arg(long)]
    pub(super) stop_with_stdin: bool,
    #[command(flatten)]
    pub(super) node: Node,
}

#[derive(Debug, Args)]
pub(super) struct Pair {
    /// Let in whoever knows the code, without asking
    #[arg(long)]
    pub(super) yes: bool,
    /// Print the code and return (needs --yes: nobody is asked)
    #[arg(long, requires = "yes")]
    pub(super) no_wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct Join {
    /// The code (a number and three words) or the link that `mesh pair` shows
    #[arg(required = true, num_args = 1..=4, value_name = "CODE|LINK")]
    pub(super) code: Vec<String>,
    /// Address of the device that shows the code, if it is not found by itself
    #[arg(long, value_name = "ADDR")]
    pub(super) at: Option<String>,
    /// Address of a bootstrap of that mesh, to find by the code the device that shows it, wherever it is
    #[arg(long, value_name = "ADDR")]
    pub(super) bootstrap: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// List the devices of the mesh
    #[command(after_help = "Example:\n  mesh device ls")]
    Ls,
    /// Remove a device: lost, stolen, or given away
    #[command(after_help = "Examples:\n  mesh device remove old-phone\n  mesh device remove old-phone --void --yes")]
    Remove(DeviceRemove),
    /// Make a device an admin: it may let devices in and remove those it outranks
    #[command(after_help = "Example:\n  mesh device promote desktop")]
    Promote {
        /// Name of the device, or its id
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Wait no more for a device that is away for long; it stays in the mesh and takes part again when it is back
    ///
    /// Devices let go of old records when all have seen what takes their place. One that is silent for months keeps
    /// the logs of the others from becoming short.
    #[command(after_help = "Example:\n  mesh device away old-phone")]
    Away {
        /// Name of the device, or its id
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make an admin a device like others; it stays in the mesh, and so do those it let in
    #[command(after_help = "Example:\n  mesh device demote desktop")]
    Demote {
        /// Name of the device, or its id
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Let a device in again that was removed: found again, or removed by mistake
    ///
    /// It comes back with the key that it had. If somebody else may have that key, because the device was stolen or
    /// its disk was copied, do not: set it up anew and let it in with `mesh pair`.
    #[command(after_help = "Examples:\n  mesh device readmit old-phone\n  mesh device readmit old-phone --yes")]
    Readmit {
        /// Name of the device, or its id
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Quarantine {
    /// Put what is in quarantine into the folder, as this device's own work
    ///
    /// What is current keeps its name: a file whose author had not seen it is put beside it, under a conflict name.
    /// What a device removed is not removed again. Bytes that are not on this device are fetched from those that are
    /// connected, which may have them in their history.
    #[command(
        after_help = "Examples:\n  mesh quarantine adopt Notes\n  mesh quarantine adopt Notes ideas/late.md\n  mesh quarantine adopt Notes --device old-phone"
    )]
    Adopt(Adopt),
}

#[derive(Debug, Args)]
pub(super) struct Adopt {
    /// Title or id of the folder
    #[arg(value_name = "FOLDER")]
    pub(super) folder: String,
    /// Files or directories, as `mesh quarantine` shows them [default: everything]
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<String>,
    /// Only what this device wrote
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct DeviceRemove {
    /// Name of the device, or its id
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Let nothing that it wrote stand, but what other devices have built on
    #[arg(long)]
    pub(super) void: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Log {
    /// Show the devices of the mesh as they were after this statement of its log
    #[arg(long, value_name = "N")]
    pub(super) at: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Cap {
    /// List all grants, senior first
    #[command(after_help = "Example:\n  mesh cap ls")]
    Ls,
    /// Show one grant
    #[command(after_help = "Example:\n  mesh cap show 3f2a9c01")]
    Show {
        /// Id of the grant: eight digits or more
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Say why a device may do what it may
    #[command(after_help = "Example:\n  mesh cap explain desktop")]
    Explain {
        /// Name of the device, or its id
        #[arg(value_name = "DEVICE")]
        device: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Folder {
    /// Make an existing directory a Live Folder, in place
    #[command(
        after_help = "Examples:\n  mesh folder add ~/Notes\n  mesh folder add /srv/scans --name \"Scanned papers\" --wait"
    )]
    Add(FolderAdd),
    /// Have a folder of the mesh on this device
    #[command(after_help = "Examples:\n  mesh folder get Notes ~/Notes\n  mesh folder get Notes ~/Notes --wait")]
    Get(FolderGet),
    /// List the folders of the mesh
    #[command(after_help = "Example:\n  mesh folder ls")]
    Ls,
    /// Show how far a folder is on this device, or all of them
    #[command(after_help = "Examples:\n  mesh folder status\n  mesh folder status Notes --json")]
    Status(FolderStatus),
    /// Show what a folder waits for on this device, and nobody connected has
    #[command(after_help = "Example:\n  mesh folder missing Notes")]
    Missing {
        /// Title or id of the folder
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Let go of what is missing: the only device that had it is lost
    ///
    /// On all devices each name keeps what else it has, or what it shows here, else it is deleted. A device that has the
    /// bytes after all and comes back keeps them in its history.
    #[command(after_help = "Examples:\n  mesh folder let-go Notes\n  mesh folder let-go Notes ideas/late.md --yes")]
    LetGo(FolderLetGo),
}

#[derive(Debug, Args)]
pub(super) struct FolderLetGo {
    /// Title or id of the folder
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// Files or directories, as `mesh folder missing` shows them [default: everything]
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct FolderAdd {
    /// The directory
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
    /// Title of the folder [default: the name of the directory]
    #[arg(long, value_name = "TITLE")]
    pub(super) name: Option<String>,
    /// Return when everything in it is recorded
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct FolderGet {
    /// Title or id of the folder, as `mesh folder ls` shows it
    #[arg(value_name = "NAME")]
    pub(super) name: String,
    /// The directory that is to hold it; made when it does not exist
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
    /// Return when everything is here
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(super) struct FolderStatus {
    /// Title or id of the folder
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Relay {
    /// Have all devices of the mesh use a relay
    #[command(after_help = "Example:\n  mesh relay add /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...")]
    Add {
        /// The line that its operator gives
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// The ticket that its operator made for a device of this mesh, where the relay takes nobody without
        #[arg(long, value_name = "TICKET")]
        ticket: Option<String>,
    },
    /// List the relays of the mesh, and how they stand
    #[command(after_help = "Example:\n  mesh relay ls")]
    Ls,
    /// Have no device of the mesh use a relay any more
    #[command(after_help = "Example:\n  mesh relay remove 3f2a91c0")]
    Remove {
        /// Id of the relay, or how it begins
        #[arg(value_name = "RELAY")]
        relay: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Bootstrap {
    /// Have all devices of the mesh use a bootstrap
    #[command(after_help = "Example:\n  mesh bootstrap add /ip4/192.0.2.8/tcp/4001/p2p/12D3Koo...")]
    Add {
        /// The line that its operator gives
        #[arg(value_name = "ADDRESS")]
        address: String,
    },
    /// List the bootstraps of the mesh, and how they stand
    #[command(after_help = "Example:\n  mesh bootstrap ls")]
    Ls,
    /// Have no device of the mesh use a bootstrap any more
    #[command(after_help = "Example:\n  mesh bootstrap remove 3f2a91c0")]
    Remove {
        /// Id of the bootstrap, or how it begins
        #[arg(value_name = "BOOTSTRAP")]
        bootstrap: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Service {
    /// Offer a port of this device to your devices
    #[command(after_help = "Examples:\n  mesh service offer ssh 22\n  mesh service offer router 192.168.1.1:80")]
    Offer {
        /// What to call it
        #[arg(value_name = "NAME")]
        name: String,
        /// A port of this device, or HOST:PORT as this device reaches it
        #[arg(value_name = "PORT")]
        target: String,
    },
    /// List what your devices offer, and who uses what of this one
    #[command(after_help = "Examples:\n  mesh service ls\n  mesh service ls --json")]
    Ls,
    /// Offer a service of this device no more; whoever uses it is cut off
    #[command(after_help = "Example:\n  mesh service withdraw ssh")]
    Withdraw {
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Let a contact use a service of this device, for a time
    #[command(after_help = "Example:\n  mesh service grant ssh --to bo --days 7")]
    Grant {
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
        /// The contact
        #[arg(long, value_name = "CONTACT")]
        to: String,
        /// For how long
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        days: u32,
    },
    /// Let a contact use it no more; he is cut off
    #[command(after_help = "Example:\n  mesh service revoke ssh --from bo")]
    Revoke {
        /// What it is called
        #[arg(value_name = "NAME")]
        name: String,
        /// The contact
        #[arg(long, value_name = "CONTACT")]
        from: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Open {
    /// The device and what it calls the service
    #[arg(value_name = "DEVICE:SERVICE")]
    pub(super) to: Option<String>,
    /// The port on this device; a free one when left out
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) local: u16,
    /// Leave the port open until `mesh close`, or the end of the node
    #[arg(long, conflicts_with = "stdio")]
    pub(super) background: bool,
    /// One connection between standard input and output, and no words
    #[arg(long, conflicts_with = "local")]
    pub(super) stdio: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Contact {
    /// Show the link that tells others who you are
    #[command(after_help = "Examples:\n  mesh contact card\n  mesh contact card --name Ann")]
    Card {
        /// Call yourself this from now on
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Add whoever gave you a link
    #[command(after_help = "Examples:\n  mesh contact add LINK\n  mesh contact add LINK --name bo")]
    Add {
        /// The link that `mesh contact card` shows
        #[arg(value_name = "LINK")]
        link: String,
        /// What to call them [default: what they call themselves]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List your contacts and what you share with them
    #[command(after_help = "Example:\n  mesh contact ls")]
    Ls,
    /// Forget a contact; what you share stays shared
    #[command(after_help = "Example:\n  mesh contact remove bo")]
    Remove {
        /// Name of the contact, or its id
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Share {
    /// Title or id of the folder
    #[arg(value_name = "FOLDER")]
    pub(super) folder: String,
    /// Name of the contact, or its id
    #[arg(long, value_name = "CONTACT")]
    pub(super) with: String,
    /// read, edit, invite (edit, and let others in) or own
    #[arg(long, value_name = "ROLE", default_value = "edit", value_parser = ["read", "edit", "invite", "own"])]
    pub(super) role: String,
}

#[derive(Debug, Args)]
pub(super) struct Unshare {
    /// Title or id of the folder
    #[arg(value_name = "FOLDER")]
    pub(super) folder: String,
    /// Name of the contact, or its id
    #[arg(long, value_name = "CONTACT")]
    pub(super) with: String,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Accept {
    /// The link that `mesh share` showed to whoever invites you
    #[arg(value_name = "LINK")]
    pub(super) link: String,
    /// The directory that is to hold it here; made when it does not exist
    #[arg(value_name = "PATH")]
    pub(super) path: Option<PathBuf>,
    /// Title here [default: the owner's]
    #[arg(long, value_name = "TITLE")]
    pub(super) name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Leave {
    /// Title or id of the folder
    #[arg(value_name = "FOLDER")]
    pub(super) folder: String,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Begin after the event of this number; 0 for all that are kept
    #[arg(long, value_name = "N")]
    pub(super) since: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Recovery {
    /// Show the phrase, to be written down on paper
    #[command(after_help = "Example:\n  mesh recovery write")]
    Write,
    /// Prove that it is written down; its secret is then wiped from this device
    #[command(after_help = "Examples:\n  mesh recovery confirm\n  mesh recovery confirm --words 3:river,17:stone")]
    Confirm(RecoveryConfirm),
    /// Type the phrase to make this device an admin, or to remove, or let in again, what no other device can
    #[command(
        after_help = "Examples:\n  mesh recovery use\n  mesh recovery use --remove stolen-laptop\n  mesh recovery use --remove stolen-laptop --void\n  mesh recovery use --readmit old-phone"
    )]
    Use {
        /// Remove this device instead
        #[arg(long, value_name = "NAME")]
        remove: Option<String>,
        /// Let this device in again instead
        #[arg(long, value_name = "NAME", conflicts_with = "remove")]
        readmit: Option<String>,
        /// Let nothing that it wrote stand, but what other devices have built on
        #[arg(long, requires = "remove")]
        void: bool,
    },
    /// On a blank device: type the phrase to enter your mesh through another of its devices
    #[command(
        after_help = "Examples:\n  mesh recovery restore\n  mesh recovery restore --at 192.168.1.20:4711\n  mesh recovery restore --at 192.168.1.20:4711 --at 10.0.0.7:4711"
    )]
    Restore {
        /// Address of a device of the mesh, if none is found by itself; may be given several times
        #[arg(long, value_name = "ADDR")]
        at: Vec<String>,
    },
    /// Type the phrase to put a new one in its place, to be written down
    #[command(after_help = "Example:\n  mesh recovery rotate")]
    Rotate,
}

#[derive(Debug, Args)]
pub(super) struct RecoveryConfirm {
    /// Two words or more by their position, instead of being asked for them
    #[arg(long, value_name = "POSITION:WORD", value_delimiter = ',', num_args = 1..)]
    pub(super) words: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Prove one round both ways, print the figures, and end
    #[arg(long)]
    pub(super) once: bool,
    /// Leave the homes and folders there at the end
    #[arg(long)]
    pub(super) keep: bool,
}
