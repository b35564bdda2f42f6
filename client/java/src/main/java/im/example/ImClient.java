package im.example;

import im.v1.*;
import java.io.*;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.*;

/**
 * Speaks to im-server with Google's protobuf-java and nothing of ours: frames are written by writeDelimitedTo and read by
 * parseDelimitedFrom. A heartbeat is a frame of length zero, so it reads as an empty ServerFrame.
 */
public final class ImClient {
    private final InputStream in;
    private final OutputStream out;
    private final PrintStream log = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    /** Pushes that came while an answer was waited for. */
    private final Deque<ServerFrame> pushes = new ArrayDeque<>();
    /** The last seq shown or skipped, by conversation. */
    private final Map<String, Long> cursors = new HashMap<>();
    private long requests, epoch, wanted;

    public static void main(String[] args) throws Exception {
        if (args.length < 4) {
            throw new IllegalArgumentException("im-java-client HOST:PORT TOKEN send USER TEXT | receive COUNT");
        }
        int colon = args[0].lastIndexOf(':');
        try (Socket socket = new Socket(args[0].substring(0, colon), Integer.parseInt(args[0].substring(colon + 1)))) {
            ImClient client = new ImClient(socket);
            // Two devices, so that one user can send and receive at once.
            client.signIn(args[1], "java-" + args[2]);
            switch (args[2]) {
                case "send" -> client.send(args[3], args[4]);
                default -> client.receive(Integer.parseInt(args[3]));
            }
        }
    }

    private ImClient(Socket socket) throws IOException {
        socket.setTcpNoDelay(true);
        in = new BufferedInputStream(socket.getInputStream());
        out = socket.getOutputStream();
    }

    private void signIn(String token, String device) throws IOException {
        SignIn signIn = SignIn.newBuilder()
                .setProtocolVersion(1).setToken(token).setDeviceId(device).setPlatform("java").build();
        SignedIn signedIn = ask(ClientFrame.newBuilder().setSignIn(signIn)).getSignedIn();
        epoch = signedIn.getEpoch();
        new Timer(true).schedule(new TimerTask() {
            @Override public void run() {
                write(ClientFrame.getDefaultInstance());
            }
        }, signedIn.getHeartbeatIntervalMs(), signedIn.getHeartbeatIntervalMs());
        log.println("signed in as " + signedIn.getUserId());
    }

    /** Repeats the send under one id until it is stored or refused for good. */
    private void send(String user, String text) throws Exception {
        Send send = Send.newBuilder().setUserId(user).setClientMessageId(UUID.randomUUID().toString())
                .setBody(MessageBody.newBuilder().setText(text).build().toByteString()).build();
        ServerFrame answer = ask(ClientFrame.newBuilder().setSend(send));
        while (answer.hasError()) {
            Thread.sleep(Math.max(50, answer.getError().getRetryAfterMs()));
            answer = ask(ClientFrame.newBuilder().setSend(send));
        }
        log.println("acked " + answer.getSendAck().getConversationId() + " " + answer.getSendAck().getSeq());
    }

    /** Shows the next `count` messages behind those that are there already. */
    private void receive(int count) throws IOException {
        wanted = count;
        sync().forEach(state -> cursors.put(state.getConversationId(), state.getHeadSeq()));
        log.println("ready");
        while (wanted > 0) {
            ServerFrame frame = pushes.isEmpty() ? read() : pushes.poll();
            if (frame.hasEntry()) {
                apply(frame.getEntry().getConversationId(), frame.getEntry().getEntry());
            } else if (frame.hasSyncHint()) {
                for (var state : sync()) pullUpTo(state.getHeadSeq(), state.getConversationId());
            }
        }
    }

    private List<ConversationState> sync() throws IOException {
        List<ConversationState> states = new ArrayList<>();
        for (Synced page = Synced.getDefaultInstance(); !page.getComplete(); ) {
            Sync sync = Sync.newBuilder().setToken(page.getToken()).build();
            page = ask(ClientFrame.newBuilder().setSync(sync)).getSynced();
            states.addAll(page.getConversationsList());
        }
        return states;
    }

    /** A push is a hint: a lower seq is dropped, the next is shown, a higher one means that something is missing. */
    private void apply(String conversation, Entry entry) throws IOException {
        if (entry.getSeq() == cursors.getOrDefault(conversation, 0L) + 1) {
            show(conversation, entry);
        } else {
            pullUpTo(entry.getSeq(), conversation);
        }
    }

    private void pullUpTo(long head, String conversation) throws IOException {
        for (long last; (last = cursors.getOrDefault(conversation, 0L)) < head; ) {
            Pull pull = Pull.newBuilder().setConversationId(conversation).setEpoch(epoch).setFromSeq(last + 1).build();
            for (Entry entry : ask(ClientFrame.newBuilder().setPull(pull)).getPulled().getEntriesList()) {
                show(conversation, entry);
            }
        }
    }

    private void show(String conversation, Entry entry) throws IOException {
        cursors.put(conversation, entry.getSeq());
        if (entry.hasMessage() && wanted-- > 0) {
            String text = MessageBody.parseFrom(entry.getMessage().getBody()).getText();
            log.println("message " + conversation + " " + entry.getSeq() + " " + entry.getSenderUserId() + " " + text);
        }
    }

    private ServerFrame ask(ClientFrame.Builder command) throws IOException {
        long request = ++requests;
        write(command.setRequestId(request).build());
        ServerFrame frame = read();
        for (; frame.getRequestId() != request; frame = read()) {
            pushes.add(frame);
        }
        return frame;
    }

    private ServerFrame read() throws IOException {
        ServerFrame frame = ServerFrame.parseDelimitedFrom(in);
        if (frame == null || frame.hasClosing()) {
            throw new IOException("closed by the server " + (frame == null ? "" : frame.getClosing().getCode()));
        }
        if (frame.hasError() && frame.getError().getClass_() == ErrorClass.ERROR_CLASS_FINAL) {
            throw new IOException("refused: " + frame.getError().getCode());
        }
        return frame;
    }

    private synchronized void write(ClientFrame frame) {
        try {
            frame.writeDelimitedTo(out);
        } catch (IOException end) {
            // The reader sees the same end of the connection and tells it.
        }
    }
}
