"""A chat in the terminal that speaks to im-server with Google's protobuf package and nothing of ours.

    proof.py HOST:PORT TOKEN PEER

In: lines typed, each a message to PEER. Out: what arrives, "#SEQ SENDER: TEXT", and "acked #SEQ" for what was stored. Always:
a line is sent under one id until it is stored or refused for good, and every message is shown once, in order.

The package has no compiler, so the wire is read from proto/descriptor.bin; its delimited form is the frames' own form.
"""

import itertools, pathlib, queue, socket, sys, threading, time, uuid
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, proto

DESCRIPTOR = pathlib.Path(__file__).parents[2] / "proto" / "descriptor.bin"
pool = descriptor_pool.DescriptorPool()
for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR.read_bytes()).file:
    pool.Add(file)
ClientFrame, ServerFrame, MessageBody = (
    message_factory.GetMessageClass(pool.FindMessageTypeByName(f"im.v1.{name}"))
    for name in ("ClientFrame", "ServerFrame", "MessageBody"))
FINAL, RESET = (pool.FindEnumTypeByName(f"im.v1.{name}").values_by_name[value].number
                for name, value in (("ErrorClass", "ERROR_CLASS_FINAL"), ("ErrorCode", "ERROR_CODE_RESET")))


class Proof:
    def __init__(self, address, token, peer):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port))).makefile("rwb")
        self.peer, self.events, self.numbers = peer, queue.Queue(), itertools.count(1)
        self.waiting, self.due, self.cursors, self.sync_token = {}, [], None, b""
        self.heartbeat_s = 10.0  # until the server says how often
        threading.Thread(target=self.read_frames, daemon=True).start()
        self.ask(self.signed_in, sign_in={"protocol_version": 1, "token": token, "device_id": "python",
                                          "platform": "python"})

    def read_frames(self):
        while (frame := proto.parse_length_prefixed(ServerFrame, self.stream)) is not None:
            self.events.put((self.on_frame, frame))
        self.events.put((sys.exit, "the connection ended"))

    def read_lines(self):
        for line in sys.stdin:
            stored = threading.Event()
            send = {"user_id": self.peer, "client_message_id": uuid.uuid4().hex,
                    "body": MessageBody(text=line.rstrip("\n")).SerializeToString()}
            self.events.put((lambda send: self.ask(lambda ack: self.acked(ack, stored), send=send), send))
            stored.wait()  # one after the other, so that the order is the order of typing
        self.events.put((sys.exit, None))

    def run(self):
        while True:
            now = time.monotonic()
            beat = self.heartbeat_s if not self.due else min(self.heartbeat_s, max(0, min(self.due)[0] - now))
            try:
                handle, argument = self.events.get(timeout=beat)
                handle(argument)
            except queue.Empty:
                self.write(ClientFrame())  # a frame of length zero
            for repeat in [one for one in self.due if one[0] <= time.monotonic()]:
                self.due.remove(repeat)
                self.ask(repeat[2], **repeat[3])

    def ask(self, on_answer, **command):
        number = next(self.numbers)
        self.waiting[number] = (on_answer, command)
        self.write(ClientFrame(request_id=number, **command))

    def write(self, frame):
        proto.serialize_length_prefixed(frame, self.stream)
        self.stream.flush()

    def on_frame(self, frame):
        kind = frame.WhichOneof("body")
        if kind == "error" and frame.error.code == RESET:
            self.cursors, self.sync_token = {}, b""  # another history: all of it is new
            self.sync()
        elif kind == "error" and getattr(frame.error, "class") == FINAL:
            sys.exit(f"refused: {frame.error.detail}")
        elif kind == "error":  # the same command with the same id, after the delay
            at = time.monotonic() + max(frame.error.retry_after_ms, 50) / 1000
            self.due.append((at, next(self.numbers), *self.waiting.pop(frame.request_id)))
        elif frame.request_id:
            self.waiting.pop(frame.request_id)[0](getattr(frame, kind))
        elif kind == "entry" and self.cursors is not None and frame.entry.conversation_id != self.user_log_id:
            self.arrived(frame.entry.conversation_id, [frame.entry.entry], frame.entry.entry.seq)
        elif kind == "sync_hint":
            self.sync()
        elif kind in ("kicked", "closing"):
            sys.exit(f"the server ended this login: {frame}")

    def signed_in(self, login):
        self.epoch, self.user_log_id = login.epoch, login.user_log_id
        self.heartbeat_s = login.heartbeat_interval_ms / 1000
        self.sync()

    def sync(self):
        self.ask(self.synced, sync={"token": self.sync_token})

    def synced(self, page):
        is_first, self.sync_token = self.cursors is None and page.complete, page.token
        self.epoch = page.epoch
        self.heads = {**getattr(self, "heads", {}), **{s.conversation_id: s.head_seq for s in page.conversations}}
        if not page.complete:
            self.sync()
        elif is_first:
            self.cursors = self.heads
            print("ready", flush=True)
            threading.Thread(target=self.read_lines, daemon=True).start()
        else:
            for conversation, head in self.heads.items():
                self.arrived(conversation, [], head)

    def arrived(self, conversation, entries, head):
        """A push is a hint: what is known is dropped, the next is shown, and what is missing is pulled."""
        for entry in entries:
            if entry.seq == self.cursors.get(conversation, 0) + 1:
                self.cursors[conversation] = entry.seq
                if entry.HasField("message"):
                    text = MessageBody.FromString(entry.message.body).text
                    print(f"#{entry.seq} {entry.sender_user_id}: {text}", flush=True)
        if (last := self.cursors.get(conversation, 0)) < head:
            self.ask(lambda pulled: self.arrived(conversation, pulled.entries, pulled.head_seq),
                     pull={"conversation_id": conversation, "epoch": self.epoch, "from_seq": last + 1})

    def acked(self, ack, stored):
        if ack.seq == self.cursors.get(ack.conversation_id, 0) + 1:
            self.cursors[ack.conversation_id] = ack.seq  # this device is not told of its own message
        print(f"acked #{ack.seq}", flush=True)
        stored.set()


if __name__ == "__main__":
    Proof(*sys.argv[1:]).run()
