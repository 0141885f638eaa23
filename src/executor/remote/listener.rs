//! Where workers of other machines connect: a TCP port under TLS, with a certificate and a token of this run alone.
//!
//! The [`Invitation`] says all that one must know to connect. Whoever holds it is let in; it travels over the engine's
//! own ways, never in arguments, environment or files, and shows nothing of itself in messages.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;

use super::super::channel::{Channel, Tls};

/// How many may have connected without having said who they are.
const MAX_GUESTS: usize = 512;
/// How many may wait to be accepted: a whole job array starts at once.
const BACKLOG: i32 = 4096;
/// Clocks differ.
const BEFORE: Duration = Duration::from_secs(3600);
/// Longer than runs last: workers may join at any time. The key never leaves this process.
const VALIDITY: Duration = Duration::from_secs(365 * 86400);
/// The name in the certificate; workers know it by its bytes.
const NAME: &str = "bpp-flow";

/// Where and how to connect.
pub(in crate::executor) struct Invitation {
    /// Names and addresses, the likeliest first.
    pub addresses: Vec<String>,
    pub port: u16,
    /// The only one to be trusted, as PEM.
    pub certificate: String,
    /// To be said first.
    pub token: String,
    /// The host that listens, since it started, and its network: who is there too knows that nothing stands between.
    pub place: String,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Invitation { addresses, port, .. } = self;
        f.debug_struct("Invitation").field("addresses", addresses).field("port", port).finish_non_exhaustive()
    }
}

/// A port where workers connect.
pub(in crate::executor) struct Listener {
    socket: TcpListener,
    config: Arc<ServerConfig>,
    invitation: Invitation,
    /// Shared with every guest.
    guests: Arc<()>,
    /// Given up to turn somebody away when no descriptor is left.
    spare: Option<File>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Listener").field(&self.invitation).finish()
    }
}

impl Listener {
    /// Listens at any free port: on all addresses of this machine, or on that one if it is an address. A name is
    /// where others are told to connect, and nothing else.
    pub(in crate::executor) fn open(address: Option<&str>) -> io::Result<Listener> {
        let named = address.filter(|a| *a != "localhost" && a.parse::<IpAddr>().is_err());
        let ip = match address.filter(|_| named.is_none()) {
            None => None,
            Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(ip) => ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()),
        };
        // What others see of this machine need not be an address of its own.
        let socket = bind(ip).or_else(|e| if ip.is_some() { bind(None) } else { Err(e) })?;
        let (certificate, config) = identity().map_err(io::Error::other)?;
        let addresses = match (named, ip) {
            (Some(name), _) => vec![name.to_string()],
            (None, Some(ip)) => vec![ip.to_string()],
            (None, None) => own_addresses(socket.local_addr()?.is_ipv6())?,
        };
        let port = socket.local_addr()?.port();
        let invitation = Invitation { addresses, port, certificate, token: token()?, place: place() };
        let spare = Some(File::open("/dev/null")?);
        Ok(Listener { socket, config: Arc::new(config), invitation, guests: Arc::default(), spare })
    }

    /// To be polled for reading.
    pub(in crate::executor) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What workers must know.
    pub(in crate::executor) fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// Whether somebody holds the invitation. Takes as long for a wrong token as for the right one.
    pub(in crate::executor) fn is_token(&self, given: &str) -> bool {
        // Digests are compared in constant time.
        blake3::hash(given.as_bytes()) == blake3::hash(self.invitation.token.as_bytes())
    }

    /// The next who has connected, if there is one. It is a guest until [`Channel::welcome`].
    pub(in crate::executor) fn accept(&mut self) -> Option<Channel> {
        loop {
            match self.socket.accept() {
                Ok(_) if Arc::strong_count(&self.guests) > MAX_GUESTS => {}
                Ok((socket, _)) => {
                    if let Ok(tls) = Tls::new(socket, &self.config) {
                        return Some(Channel::to_guest(tls, self.guests.clone()));
                    }
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE) => self.turn_away()?,
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => {}
                    _ => return None,
                },
            }
        }
    }

    /// Without a free descriptor nobody can be accepted, and whoever waits would keep `poll` from ever waiting.
    fn turn_away(&mut self) -> Option<()> {
        drop(self.spare.take()?);
        let turned = self.socket.accept();
        drop(turned);
        self.spare = File::open("/dev/null").ok();
        Some(())
    }
}

/// A listening socket; without an address one for IPv6 and IPv4 both, where there is IPv6.
/// Empty where the system does not say.
fn place() -> String {
    let started = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let network = std::fs::metadata("/proc/self/ns/net").map(|found| found.ino());
    match (started, network) {
        (Ok(started), Ok(network)) => format!("{} {network}", started.trim()),
        _ => String::new(),
    }
}

fn bind(ip: Option<IpAddr>) -> io::Result<TcpListener> {
    let all = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let candidates = ip.as_ref().map_or(&all[..], std::slice::from_ref);
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in candidates {
        match bind_one(*ip) {
            Ok(socket) => return Ok(socket),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

fn bind_one(ip: IpAddr) -> io::Result<TcpListener> {
    let family = if ip.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(ip, 0))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A certificate that signs itself, as PEM, and what answers for it. Strict readers ask that one which signs says so.
fn identity() -> Result<(String, ServerConfig), Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([NAME.to_string()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(BEFORE);
    params.not_after = params.not_before + VALIDITY;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.self_signed(&key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    // Nobody comes twice.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok((certificate.pem(), config))
}

/// 32 random bytes, in hexadecimal.
fn token() -> io::Result<String> {
    let mut bytes = [0; blake3::OUT_LEN];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

/// This machine's name, then its addresses: those that others reach, IPv4 first, then the one that is always there.
fn own_addresses(v6_too: bool) -> io::Result<Vec<String>> {
    let mut ips = interface_addresses()?;
    ips.retain(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        // A link-local address means nothing without the name of the other end's interface.
        IpAddr::V6(ip) => v6_too && !ip.is_loopback() && !ip.is_unicast_link_local(),
    });
    ips.sort_by_key(IpAddr::is_ipv6);
    ips.dedup();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let ips = ips.into_iter().chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    Ok(std::iter::once(name).filter(|name| !name.is_empty()).chain(ips.map(|ip| ip.to_string())).collect())
}

/// The addresses of all interfaces that are up.
fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: it writes to a valid place.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut ips, mut next) = (Vec::new(), first);
    // SAFETY: a list of whole entries that ends with null and is freed only below; an address is of the type that its
    // family names.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let up = entry.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        let family = unsafe { entry.ifa_addr.as_ref() }.map(|address| i32::from(address.sa_family)).filter(|_| up);
        ips.extend(match family {
            Some(libc::AF_INET) => {
                let address = unsafe { &*entry.ifa_addr.cast::<libc::sockaddr_in>() };
                Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr))))
            }
            Some(libc::AF_INET6) => {
                let address = unsafe { &*entry.ifa_addr.cast::<libc::sockaddr_in6>() };
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            }
            _ => None,
        });
    }
    // SAFETY: what getifaddrs gave, once.
    unsafe { libc::freeifaddrs(first) };
    Ok(ips)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::executor::codec::{FrameReader, FrameWriter};

    /// What every client begins with: `sock`, connected under TLS as strictly as any Python does it, and `read`.
    const CLIENT: &str = r"
import socket, ssl, struct, sys
port, token, certificate = int(sys.argv[1]), *sys.stdin.read().split('\n', 1)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
context.verify_flags |= ssl.VERIFY_X509_STRICT
context.load_verify_locations(cadata=certificate)
sock = context.wrap_socket(socket.create_connection(('127.0.0.1', port), 20))
def read(n):
    data = bytearray()
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more: sys.exit(3)
        data += more
    return data
";

    #[expect(clippy::disallowed_methods, reason = "a worker of another machine, for a test")]
    fn client(listener: &Listener, program: &str) -> Child {
        let mut child = Command::new("python3")
            .args(["-c", &format!("{CLIENT}{program}"), &listener.invitation.port.to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let Invitation { token, certificate, .. } = &listener.invitation;
        write!(child.stdin.take().unwrap(), "{token}\n{certificate}").unwrap();
        child
    }

    /// Waits as the hub does, so that whatever `poll` is not told of is waited for in vain.
    fn wait(fd: BorrowedFd, sending: bool) {
        let mut events = PollFlags::IN;
        events.set(PollFlags::OUT, sending);
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&limit)).unwrap();
        assert_eq!(ready, 1, "woken within 20 s");
    }

    fn guest(listener: &mut Listener) -> Channel {
        wait(listener.fd(), false);
        listener.accept().unwrap()
    }

    fn next_frame(channel: &mut Channel) -> Option<(u8, Vec<u8>)> {
        loop {
            match channel.next_frame() {
                None if channel.ended() => return None,
                None => {
                    wait(channel.socket(), channel.is_sending());
                    channel.flush();
                    channel.fill();
                }
                frame => return frame,
            }
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = FrameWriter::new(kind);
        frame.bytes(payload);
        frame.finish()
    }

    #[test]
    fn large_frames_travel_both_ways_at_once() {
        let mut listener = Listener::open(Some("127.0.0.1")).unwrap();
        let program = r"
sock.sendall(struct.pack('<IB', len(token), ord('h')) + token.encode())
for n in range(200):
    head = read(5)
    sock.sendall(head)
    for at in range(0, int.from_bytes(head[:4], 'little'), 100_000):
        sock.sendall(read(min(100_000, int.from_bytes(head[:4], 'little') - at)))
";
        let mut child = client(&listener, program);
        let mut channel = guest(&mut listener);
        assert_eq!(Arc::strong_count(&listener.guests), 2);
        let (kind, token) = next_frame(&mut channel).unwrap();
        assert!(kind == b'h' && listener.is_token(std::str::from_utf8(&token).unwrap()));
        channel.welcome();
        assert_eq!(Arc::strong_count(&listener.guests), 1);
        let sizes: Vec<usize> = (0..200).map(|n| if n % 50 == 7 { 5_000_000 } else { n * n * 3 }).collect();
        for (n, size) in sizes.iter().enumerate() {
            channel.push(frame(n as u8, &vec![n as u8; *size]));
        }
        for (n, size) in sizes.iter().enumerate() {
            let (kind, payload) = next_frame(&mut channel).unwrap();
            let mut reader = FrameReader::new(&payload);
            let content = reader.bytes().unwrap();
            assert!(kind == n as u8 && content.len() == *size && content.iter().all(|b| *b == kind), "frame {n}");
        }
        assert!(!channel.is_sending());
        assert_eq!(next_frame(&mut channel), None, "and then the end");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn frames_that_are_pushed_before_the_handshake_arrive() {
        let mut listener = Listener::open(Some("127.0.0.1")).unwrap();
        let mut child = client(&listener, "sys.exit(0 if read(12)[9:] == b'abc' else 4)");
        let mut channel = guest(&mut listener);
        channel.push(frame(b'R', b"abc"));
        channel.flush();
        assert_eq!(next_frame(&mut channel), None);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn guests_take_little() {
        let mut listener = Listener::open(Some("127.0.0.1")).unwrap();
        for program in [
            "sock.sendall(struct.pack('<IB', 1 << 29, 104) + bytes(100)); sys.exit(sock.recv(1) != b'')",
            "sock.sendall(struct.pack('<IB', 60_000, 104) + bytes(80_000)); sys.exit(sock.recv(1) != b'')",
        ] {
            let mut child = client(&listener, program);
            let mut channel = guest(&mut listener);
            while next_frame(&mut channel).is_some() {}
            assert!(channel.ended());
            drop(channel);
            let _ = child.wait().unwrap();
        }
        let mut noise = TcpStream::connect(("127.0.0.1", listener.invitation.port)).unwrap();
        noise.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut channel = guest(&mut listener);
        assert_eq!(next_frame(&mut channel), None);
        drop(channel);
        let _ = noise.read(&mut [0; 100]);
        assert_eq!(Arc::strong_count(&listener.guests), 1);
    }

    #[test]
    fn other_certificates_are_not_trusted() {
        let (mut listener, other) =
            (Listener::open(Some("127.0.0.1")).unwrap(), Listener::open(Some("127.0.0.1")).unwrap());
        listener.invitation.certificate = other.invitation.certificate;
        let child = client(&listener, "");
        let mut channel = guest(&mut listener);
        let begun = Instant::now();
        assert_eq!(next_frame(&mut channel), None);
        assert!(begun.elapsed() < Duration::from_secs(8), "told, not timed out");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("CERTIFICATE_VERIFY_FAILED"), "{said}");
    }

    #[test]
    fn the_address_says_where_it_listens_and_what_it_tells() {
        let of = |address| Listener::open(address).unwrap();
        for (address, told) in
            [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("login.cluster", "login.cluster")]
        {
            let listener = of(Some(address));
            assert_eq!(listener.invitation.addresses, [told]);
            assert_eq!(listener.socket.local_addr().unwrap().ip().is_loopback(), told == "127.0.0.1");
        }
        for listener in [of(None), of(Some("0.0.0.0"))] {
            let Invitation { addresses, port, .. } = &listener.invitation;
            assert_eq!(addresses.last().unwrap(), "127.0.0.1");
            assert_eq!(addresses.iter().filter(|a| a.starts_with("127.")).count(), 1);
            assert!(!addresses.iter().any(|a| a == "::1" || a.starts_with("fe80:")), "{addresses:?}");
            for address in &addresses[1..] {
                TcpStream::connect((address.as_str(), *port)).unwrap();
            }
        }
        let elsewhere = of(Some("192.0.2.1"));
        assert_eq!(elsewhere.invitation.addresses, ["192.0.2.1"], "what nodes see of this machine need not be its own");
        TcpStream::connect(("127.0.0.1", elsewhere.invitation.port)).unwrap();
    }

    #[test]
    fn nothing_secret_is_shown() {
        let (one, two) = (Listener::open(Some("127.0.0.1")).unwrap(), Listener::open(Some("127.0.0.1")).unwrap());
        let token = &one.invitation.token;
        assert!(token.len() == 64 && one.is_token(token) && !two.is_token(token) && !one.is_token(&token[1..]));
        let shown = format!("{one:?} {:?}", one.invitation());
        assert!(shown.contains("127.0.0.1") && !shown.contains(token) && !shown.contains("CERTIFICATE"), "{shown}");
    }
}
