"""A chat in the terminal that speaks to im-server with Google's protobuf package and nothing of ours:

    proof.py HOST:PORT TOKEN PEER

In: lines typed, each a message to PEER. Out: what arrives, "#SEQ SENDER: TEXT", and "acked #SEQ" for what was stored.
Always: a line is sent under one id until it is stored or refused for good; every message is shown once, in order.
The package has no compiler, so the wire is read from proto/descriptor.bin; its length-prefixed form is the frames' own.
"""

import functools, itertools, pathlib, queue, socket, sys, threading, uuid
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, proto

pool = descriptor_pool.DescriptorPool()
descriptor = (pathlib.Path(__file__).parents[2] / "proto" / "descriptor.bin").read_bytes()
for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor).file:
    pool.Add(file)
ClientFrame, ServerFrame, MessageBody = (message_factory.GetMessageClass(pool.FindMessageTypeByName("im.v1." + name))
                                         for name in ("ClientFrame", "ServerFrame", "MessageBody"))
FINAL = pool.FindEnumTypeByName("im.v1.ErrorClass").values_by_name["ERROR_CLASS_FINAL"].number


class Proof:
    def __init__(self, address, token, peer):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port))).makefile("rwb")
        self.peer, self.events, self.numbers = peer, queue.Queue(), itertools.count(1)
        self.waiting, self.cursors, self.sync_token, self.is_ready = {}, {}, b"", False
        threading.Thread(target=self.read_frames, daemon=True).start()
        self.ask(self.signed_in, sign_in=dict(protocol_version=1, token=token, device_id="python", platform="python"))

    def read_frames(self):
        while (frame := proto.parse_length_prefixed(ServerFrame, self.stream)) is not None:
            self.events.put(functools.partial(self.on_frame, frame))
        self.events.put(lambda: sys.exit("the connection ended"))

    def read_lines(self):
        for line in sys.stdin:
            body = MessageBody(text=line.rstrip("\n")).SerializeToString()
            send, stored = dict(user_id=self.peer, client_message_id=uuid.uuid4().hex, body=body), threading.Event()
            self.events.put(functools.partial(self.ask, functools.partial(self.acked, stored), send=send))
            stored.wait()  # one after the other: the order is that of typing
        self.events.put(sys.exit)

    def after(self, delay_ms, action):
        timer = threading.Timer(delay_ms / 1000, self.events.put, [action])
        timer.daemon = True
        timer.start()

    def heartbeat(self, interval_ms):
        self.write(ClientFrame())  # a frame of length zero
        self.after(interval_ms, lambda: self.heartbeat(interval_ms))

    def ask(self, on_answer, **command):
        self.waiting[number := next(self.numbers)] = (on_answer, command)
        self.write(ClientFrame(request_id=number, **command))

    def write(self, frame):
        proto.serialize_length_prefixed(frame, self.stream)
        self.stream.flush()

    def on_frame(self, frame):
        kind = frame.WhichOneof("body")
        on_answer, command = self.waiting.pop(frame.request_id, (None, None))
        if kind in ("kicked", "closing") or kind == "error" and getattr(frame.error, "class") == FINAL:
            sys.exit(f"the server said no: {frame}")
        elif kind == "error":  # the same command with the same id, after the delay
            self.after(max(frame.error.retry_after_ms, 50), lambda: self.ask(on_answer, **command))
        elif on_answer:
            on_answer(getattr(frame, kind))
        elif kind == "entry" and self.is_ready and frame.entry.conversation_id != self.user_log_id:
            self.arrived(frame.entry.conversation_id, [frame.entry.entry], frame.entry.entry.seq)
        elif kind == "sync_hint":
            self.sync()

    def signed_in(self, login):
        self.user_log_id = login.user_log_id
        self.heartbeat(login.heartbeat_interval_ms)
        self.sync()

    def acked(self, stored, ack):
        if ack.seq == self.cursors.get(ack.conversation_id, 0) + 1:
            self.cursors[ack.conversation_id] = ack.seq  # this device is not told of its own message
        print(f"acked #{ack.seq}", flush=True)
        stored.set()

    def sync(self):
        self.ask(self.synced, sync=dict(token=self.sync_token))

    def synced(self, page):
        self.epoch, self.sync_token = page.epoch, page.token
        for state in page.conversations:
            if self.is_ready:
                self.arrived(state.conversation_id, [], state.head_seq)
            else:  # only what comes from now on is shown
                self.cursors[state.conversation_id] = state.head_seq
        if not page.complete or not self.is_ready:
            self.sync()  # when all is here once more, for what was pushed meanwhile
        if page.complete and not self.is_ready:
            self.is_ready = True
            print("ready", flush=True)
            threading.Thread(target=self.read_lines, daemon=True).start()

    def arrived(self, conversation, entries, head):
        """A push is a hint: what is known is dropped, the next is shown, what is missing is pulled."""
        for entry in entries:
            if entry.seq == self.cursors.get(conversation, 0) + 1:
                self.cursors[conversation] = entry.seq
                if entry.HasField("message"):
                    body = MessageBody.FromString(entry.message.body)
                    print(f"#{entry.seq} {entry.sender_user_id}: {body.text}", flush=True)
        if (last := self.cursors.get(conversation, 0)) < head:
            pull = dict(conversation_id=conversation, epoch=self.epoch, from_seq=last + 1)
            self.ask(lambda pulled: self.arrived(conversation, pulled.entries, pulled.head_seq), pull=pull)


if __name__ == "__main__":
    proof = Proof(*sys.argv[1:])
    while True:
        proof.events.get()()
