//! Two workers and two gateways on the real services.
//!
//! In: settings, a deployment, where each role listens and looks for the others and for the services. Out: a [`Server`] whose
//! processes can also be killed, stopped, paused and started one by one. Always: every role is ready when it is handed over.

use super::deployment::{Deployment, PARTITIONS, Services};
use super::endpoint::Endpoint;
use super::process::{Addresses, CLOCK_FILE, Folder, Launch, POLL, Process, Role, START_DEADLINE, Settings, Started};
use super::server::Server;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

/// Where the roles listen, and where they look for each other: something may lie between.
pub struct Places {
    pub workers: [Addresses; 2],
    pub gateways: [Addresses; 2],
    /// Where gateways ask the workers.
    pub questions: [SocketAddr; 2],
    /// Where workers deliver to each gateway.
    pub deliveries: [SocketAddr; 2],
    /// Where each worker finds the services.
    pub workers_find: [Services; 2],
    pub gateways_find: [Services; 2],
}

impl Places {
    pub fn direct(services: &Services) -> Self {
        let (workers, gateways) = ([(); 2].map(|()| known_ports()), [(); 2].map(|()| known_ports()));
        let found = [(); 2].map(|()| services.clone());
        Self {
            workers,
            gateways,
            questions: workers.map(|at| at.rpc),
            deliveries: gateways.map(|at| at.rpc),
            workers_find: found.clone(),
            gateways_find: found,
        }
    }
}

/// On a loopback address that no other process of this run has, with ports that are known before the process starts. Nobody looks
/// for a port on all addresses: it would be in the way of a process that has been given the same one on its own address.
fn known_ports() -> Addresses {
    let own = Addresses::own().tcp;
    let listeners = [(); 4].map(|()| TcpListener::bind(own).unwrap());
    let [tcp, websocket, http, rpc] = listeners.map(|listener| listener.local_addr().unwrap());
    Addresses { tcp, websocket, http, rpc }
}

impl Server {
    /// On a deployment of its own in the services that the environment names.
    pub fn start_cluster(settings: Settings) -> Self {
        let services = Services::of_environment();
        let places = Places::direct(&services);
        Self::start_cluster_at(settings, Deployment::new(services), &places)
    }

    pub fn start_cluster_at(settings: Settings, deployment: Deployment, places: &Places) -> Self {
        let folder = Folder::new();
        let launch = |role, number: usize, services, own: Vec<(&str, String)>| {
            let clock = folder.path().join(format!("clock-{role:?}-{number}")).display().to_string();
            let own =
                own.into_iter().chain([(CLOCK_FILE, clock)]).map(|(variable, value)| (variable.to_owned(), value));
            let environment: BTreeMap<String, String> =
                deployment.environment(services).into_iter().chain(own).collect();
            Launch { role, folder: folder.clone(), environment, settings: settings.clone() }
        };
        migrate(&launch(Role::Logic, 0, &places.workers_find[0], Vec::new()));
        let workers = std::array::from_fn::<Started, 2, _>(|number| {
            launch(Role::Logic, number, &places.workers_find[number], Vec::new()).start(places.workers[number])
        });
        let mut processes = workers.map(ready).into_iter().collect::<Vec<Process>>();
        let endpoints = json!(places.questions.map(|at| format!("http://{at}"))).to_string();
        let gateways = std::array::from_fn::<Started, 2, _>(|number| {
            let advertised = format!("http://{}", places.deliveries[number]);
            let own = vec![("IM_RPC__LOGIC__ENDPOINTS", endpoints.clone()), ("IM_RPC__ADVERTISE", advertised)];
            launch(Role::Gateway, number, &places.gateways_find[number], own).start(places.gateways[number])
        });
        partitions_are_shared_out(&processes);
        processes.extend(gateways.map(ready));
        let mut server = Self::of(folder, processes);
        server.deployment = Some(deployment);
        server
    }

    pub fn deployment(&self) -> &Deployment {
        self.deployment.as_ref().unwrap()
    }

    /// Makes tables and topics where there are none, the topic with so many partitions.
    pub fn migrate(&self, partitions: usize) {
        let mut launch = self.processes[0].launch();
        launch.environment.insert("IM_KAFKA__PARTITIONS".to_owned(), partitions.to_string());
        migrate(&launch);
    }

    /// Where clients of one gateway connect.
    pub fn door_of(&mut self, gateway: usize) -> Endpoint {
        let Addresses { tcp, websocket, .. } = self.gateway(gateway).addresses;
        Endpoint::of_this_run(tcp, websocket)
    }

    /// Where clients connect from now on.
    pub fn set_doors(&mut self, doors: Vec<Endpoint>) {
        self.doors = doors;
    }

    pub fn worker(&mut self, number: usize) -> &mut Process {
        self.of_role(Role::Logic, number)
    }

    pub fn gateway(&mut self, number: usize) -> &mut Process {
        self.of_role(Role::Gateway, number)
    }

    fn of_role(&mut self, role: Role, number: usize) -> &mut Process {
        self.processes.iter_mut().filter(|process| process.role() == role).nth(number).unwrap()
    }
}

impl Process {
    pub fn restart(&mut self) {
        let started = self.begin_restart();
        if let Err(status) = self.end_restart(started) {
            panic!("no restart: {status}\n{}", self.tail());
        }
    }

    /// The process stands still, its connections open, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }
}

/// Tables and topics, as an operator makes them.
fn migrate(launch: &Launch) {
    let output = launch.command(&["migrate", "up"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "migrate up: {}\n{said}", output.status);
}

/// Workers are ready before Kafka has shared the partitions out; a test's first message should not wait for that.
fn partitions_are_shared_out(workers: &[Process]) {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let owned: Vec<usize> = workers.iter().map(|worker| owned_partitions(&worker.log())).collect();
        if owned.iter().all(|owned| *owned == PARTITIONS / workers.len()) {
            return;
        }
        assert!(Instant::now() < deadline, "of {PARTITIONS} partitions the workers own {owned:?}");
        std::thread::sleep(POLL);
    }
}

/// Counted: one consumer of the process may tell of its loss after the other told of its gain.
fn owned_partitions(log: &str) -> usize {
    let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    count("partition gained").saturating_sub(count("partition lost"))
}

fn ready(started: Started) -> Process {
    started.ready().unwrap_or_else(|(status, log)| panic!("no start: {status}\n{log}"))
}
