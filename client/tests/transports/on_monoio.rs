use crate::scene::{self, Over};
use bytes::Bytes;
use im_client::monoio_transport::{App, Client};
use im_client::{Command, Core, Event, Recipient};
use rand::{SeedableRng as _, rngs::SmallRng};
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::oneshot;

struct Told {
    events: Rc<RefCell<Vec<Event>>>,
    /// Dropped with the client, when the last of its tasks lets go of it.
    _alive: oneshot::Sender<()>,
}

impl App for Told {
    fn event(&self, client: &Client<Self>, event: Event) {
        if scene::is_last(&event) {
            client.end();
        }
        self.events.borrow_mut().push(event);
    }
}

#[test]
fn a_send_outlives_its_link_on_monoio_over_tcp() {
    a_send_outlives_its_link(Over::Tcp);
}

#[test]
fn a_send_outlives_its_link_on_monoio_over_websocket() {
    a_send_outlives_its_link(Over::Websocket);
}

fn a_send_outlives_its_link(over: Over) {
    let (address, server) = scene::start(over);
    let events = Rc::new(RefCell::new(Vec::new()));
    let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(async {
        let core = Core::new(scene::config(), SmallRng::seed_from_u64(1));
        let (alive, ended) = oneshot::channel();
        let client =
            Client::start_at(address, over.address(address), core, Told { events: events.clone(), _alive: alive });
        let to = Recipient::User(scene::user("bob"));
        let body = Bytes::from_static(b"hello");
        client.command(Command::Send { to, client_message_id: None, body }).unwrap();
        drop(client);
        assert!(ended.await.is_err(), "its tasks let go of the client when it has ended");
    });
    let told = events.take();
    let last = told.iter().position(scene::is_last).expect("the scene is over");
    scene::check(&told[..=last]);
    assert!(matches!(told.last(), Some(Event::Disconnected { reconnect_after_ms: None, .. })));
    server.join().unwrap();
}
