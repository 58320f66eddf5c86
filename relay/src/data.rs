//! The data port: joins two TCP connections that present the tokens of one channel, and lets the kernel move the bytes
//! between them. The relay cannot read them, and does not look.

mod budget;
mod counters;
mod rate;
mod splice;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use meshwork_host::{clock, entropy::entropy, supervise::Stop};
use meshwork_protocol::{
    id::DeviceId,
    limits,
    splice::{ChannelId, Channels, Grant, Joined, PREAMBLE, READY, Refusal, Token, VERSION},
};
use rustix::{io::Errno, net::sockopt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{oneshot, watch},
    time::timeout,
};

use self::{budget::Budget, counters::Counters, rate::Rates};

/// What a data port allows.
#[derive(Debug, Clone)]
pub struct DataConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections that wait for a token or for their other end.
    pub unpaired: usize,
    /// The same, of one IP address.
    pub unpaired_per_ip: usize,
    /// Pairs joined at one time.
    pub pairs: usize,
    /// Time without a byte after which a pair is closed.
    pub idle: Duration,
    /// Bytes a second of one device; 0 is unlimited.
    pub device_rate: u64,
    /// Bytes a second of all together; 0 is unlimited.
    pub total_rate: u64,
    /// Bytes in a month (UTC); 0 is unlimited.
    pub monthly_bytes: u64,
    /// Where the bytes of this month are remembered; without it they count from the start of the process.
    pub budget_file: Option<PathBuf>,
}

/// A data port, bound and not yet serving.
pub struct DataPort {
    listener: TcpListener,
    handle: DataHandle,
}

/// To open channels, to drain, and to look. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct DataHandle(Arc<Shared>);

struct Shared {
    config: DataConfig,
    desk: Mutex<Desk>,
    rates: Mutex<Rates>,
    budget: Budget,
    counters: Counters,
    draining: watch::Sender<bool>,
    pairs: watch::Sender<usize>,
}

/// Who waits: channels for their ends, and connections.
struct Desk {
    channels: Channels,
    parked: BTreeMap<ChannelId, oneshot::Sender<TcpStream>>,
    unpaired: BTreeMap<IpAddr, usize>,
    unpaired_total: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Every IPv6 address is every IPv4 address too, and on a host without IPv6 these alone.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let is_every = address.is_ipv6() && address.ip().is_unspecified();
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if is_every {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().or_else(|error: io::Error| {
        let without = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(|errno| Some(errno.raw_os_error()));
        if !is_every || !without.contains(&error.raw_os_error()) {
            return Err(error);
        }
        listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
    })
}

impl DataPort {
    /// Binds, and reads the budget file if there is one.
    pub async fn bind(config: DataConfig) -> io::Result<Self> {
        let listener = listen(config.listen)?;
        let channels = Channels::new(listener.local_addr()?.port());
        let desk = Desk { channels, parked: BTreeMap::new(), unpaired: BTreeMap::new(), unpaired_total: 0 };
        let shared = Shared {
            desk: Mutex::new(desk),
            rates: Mutex::new(Rates::new(config.device_rate, config.total_rate)),
            budget: Budget::open(config.monthly_bytes, config.budget_file.clone())?,
            counters: Counters::default(),
            draining: watch::Sender::new(false),
            pairs: watch::Sender::new(0),
            config,
        };
        Ok(Self { listener, handle: DataHandle(Arc::new(shared)) })
    }

    /// The bound address: tells the port that 0 became.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// To open channels in it.
    pub fn handle(&self) -> DataHandle {
        self.handle.clone()
    }

    /// Serves until told to stop, or until it was drained and is empty.
    pub async fn serve(self, stop: Stop) -> io::Result<()> {
        let shared = self.handle.0.clone();
        let (cut, _) = watch::channel(());
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => shared.clone().admit(stream, from.ip().to_canonical(), cut.subscribe()),
                    // The process has no file descriptor to spare; the next one may be freed at any time.
                    Err(error) => {
                        tracing::warn!(%error, "data port cannot accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                () = stop.requested() => break,
                () = self.handle.drained() => break,
            }
        }
        // Dropping `cut` ends what is still joined.
        drop(cut);
        self.handle.0.budget.save()
    }
}

impl DataHandle {
    /// Opens a channel for a device that has proved to be `from`.
    pub fn open(&self, from: DeviceId, to: DeviceId) -> Result<Grant, Refusal> {
        let shared = &self.0;
        let opened = if *shared.draining.borrow() {
            Err(Refusal::Draining)
        } else if shared.budget.is_spent() {
            Err(Refusal::Budget)
        } else if !lock(&shared.rates).has_room(from) {
            Err(Refusal::Busy)
        } else {
            let mut desk = lock(&shared.desk);
            shared.expire(&mut desk);
            desk.channels.open(clock::now(), &mut entropy(), from, to)
        };
        match opened {
            Ok(_) => shared.counters.opened.fetch_add(1, Ordering::Relaxed),
            Err(refusal) => shared.counters.refuse(refusal),
        };
        opened
    }

    /// Opens no more channels; those that wait or are joined go on to their end.
    pub fn drain(&self) {
        self.0.draining.send_replace(true);
    }

    /// Whether it was told to drain.
    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    /// Returns once it was told to drain and nothing is left.
    pub async fn drained(&self) {
        // The senders live as long as this handle.
        let _ = self.0.draining.subscribe().wait_for(|draining| *draining).await;
        let mut pairs = self.0.pairs.subscribe();
        loop {
            let _ = pairs.wait_for(|pairs| *pairs == 0).await;
            let waiting = {
                let mut desk = lock(&self.0.desk);
                self.0.expire(&mut desk);
                desk.channels.len() + desk.parked.len()
            };
            if waiting == 0 && *pairs.borrow_and_update() == 0 {
                return;
            }
            // A channel that waits becomes a pair or expires; neither is told here.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Its counters in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let desk = lock(&self.0.desk);
        let gauges = [
            ("data_channels_waiting", "Channels that wait for an end.", desk.channels.len() as u64),
            ("data_connections_unpaired", "Connections without their other end.", desk.unpaired_total as u64),
            ("data_pairs", "Pairs of connections joined now.", *self.0.pairs.borrow() as u64),
            ("data_draining", "1 while no new channels are taken.", u64::from(self.is_draining())),
            ("data_month_bytes", "Bytes used of the monthly budget.", self.0.budget.used()),
            ("data_month_bytes_limit", "The monthly budget; 0 is none.", self.0.config.monthly_bytes),
        ];
        self.0.counters.text(&gauges)
    }
}

impl Shared {
    fn expire(&self, desk: &mut Desk) {
        let count = desk.channels.expire(clock::now());
        self.counters.expired.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Takes a connection in, or closes it at once when too many have not found their other end.
    fn admit(self: Arc<Self>, stream: TcpStream, ip: IpAddr, cut: watch::Receiver<()>) {
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let Some(place) = Place::take(&self, ip) else {
            self.counters.refuse(Refusal::Busy);
            // One byte into an empty send buffer: it never blocks.
            let _ = stream.try_write(&[Refusal::Busy.code()]);
            return;
        };
        tokio::spawn(async move { self.meet(stream, place, cut).await });
    }

    async fn meet(self: Arc<Self>, mut stream: TcpStream, place: Place, mut cut: watch::Receiver<()>) {
        let met = tokio::select! {
            met = self.pair(&mut stream) => met,
            _ = cut.changed() => return,
        };
        drop(place);
        match met {
            // Two ends: this one waited for that one.
            Ok(Meeting::Both(other, payer)) => self.join(stream, other, payer, cut).await,
            Ok(Meeting::Passed(parked)) => {
                // When the first end has gone this moment, both are closed.
                let _ = parked.send(stream);
            }
            Err(refusal) => {
                self.counters.refuse(refusal);
                let _ = timeout(limits::SPLICE_PREAMBLE, stream.write_all(&[refusal.code()])).await;
            }
        }
    }

    /// Reads the preamble and finds or waits for the other end.
    async fn pair(&self, stream: &mut TcpStream) -> Result<Meeting, Refusal> {
        let mut preamble = [0; PREAMBLE];
        match timeout(limits::SPLICE_PREAMBLE, stream.read_exact(&mut preamble)).await {
            Ok(Ok(_)) => {}
            _ => return Err(Refusal::Preamble),
        }
        let (version, token) = preamble.split_at(1);
        if version != [VERSION] {
            return Err(Refusal::Version);
        }
        let token = Token(token.try_into().map_err(|_| Refusal::Preamble)?);
        let (joined, place) = {
            let mut desk = lock(&self.desk);
            let joined = desk.channels.present(clock::now(), token)?;
            match joined.wait {
                None => {
                    let parked = desk.parked.remove(&joined.channel).ok_or(Refusal::Expired)?;
                    return Ok(Meeting::Passed(parked));
                }
                Some(_) => {
                    let (parked, place) = oneshot::channel();
                    desk.parked.insert(joined.channel, parked);
                    (joined, place)
                }
            }
        };
        let other = self.wait(stream, &joined, place).await;
        if other.is_err() {
            let mut desk = lock(&self.desk);
            desk.parked.remove(&joined.channel);
            desk.channels.forget(joined.channel);
        }
        other.map(|other| Meeting::Both(other, joined.payer))
    }

    async fn wait(
        &self,
        stream: &TcpStream,
        joined: &Joined,
        place: oneshot::Receiver<TcpStream>,
    ) -> Result<TcpStream, Refusal> {
        let mut early = [0; 1];
        let left = joined.wait.unwrap_or_default() - clock::now();
        tokio::select! {
            other = place => other.map_err(|_| Refusal::Expired),
            // Nobody speaks before both are there: this is an end, or a mistake.
            _ = stream.peek(&mut early) => Err(Refusal::Preamble),
            () = tokio::time::sleep(left) => Err(Refusal::Expired),
        }
    }

    async fn join(&self, mut a: TcpStream, mut b: TcpStream, payer: DeviceId, mut cut: watch::Receiver<()>) {
        if *self.pairs.borrow() >= self.config.pairs {
            self.counters.refuse(Refusal::Busy);
            let code = [Refusal::Busy.code()];
            let _ =
                timeout(limits::SPLICE_PREAMBLE, async { (a.write_all(&code).await, b.write_all(&code).await) }).await;
            return;
        }
        let _pair = Pair::begin(&self.pairs);
        self.counters.joined.fetch_add(1, Ordering::Relaxed);
        let ended = tokio::select! {
            ended = self.splice(&mut a, &mut b, payer) => ended,
            _ = cut.changed() => Err(splice::End::Stopped),
        };
        if let Err(end) = ended {
            tracing::debug!(reason = end.name(), "pair closed");
            self.counters.cut(end);
        }
    }

    async fn splice(&self, a: &mut TcpStream, b: &mut TcpStream, payer: DeviceId) -> Result<(), splice::End> {
        a.write_all(&[READY]).await?;
        b.write_all(&[READY]).await?;
        let meter = splice::Meter { shared: self, payer, moved: Default::default() };
        splice::both(a, b, &meter, self.config.idle).await
    }
}

enum Meeting {
    Both(TcpStream, DeviceId),
    Passed(oneshot::Sender<TcpStream>),
}

/// A place among the connections that have not found their other end.
struct Place {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Place {
    fn take(shared: &Arc<Shared>, ip: IpAddr) -> Option<Self> {
        let mut desk = lock(&shared.desk);
        let of_ip = desk.unpaired.get(&ip).copied().unwrap_or_default();
        if desk.unpaired_total >= shared.config.unpaired || of_ip >= shared.config.unpaired_per_ip {
            return None;
        }
        desk.unpaired.insert(ip, of_ip + 1);
        desk.unpaired_total += 1;
        Some(Self { shared: shared.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut desk = lock(&self.shared.desk);
        desk.unpaired_total -= 1;
        if let Some(count) = desk.unpaired.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                desk.unpaired.remove(&self.ip);
            }
        }
    }
}

/// One pair more, until it is dropped.
struct Pair<'a>(&'a watch::Sender<usize>);

impl<'a> Pair<'a> {
    fn begin(pairs: &'a watch::Sender<usize>) -> Self {
        pairs.send_modify(|pairs| *pairs += 1);
        Self(pairs)
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|pairs| *pairs -= 1);
    }
}
