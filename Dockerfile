# The image of im-server, every role in one program:
#   docker build -t im-server . && docker run --name im -p 6100-6101:6100-6101 -p 127.0.0.1:6102:6102 -v im-data:/data im-server
#   docker exec im im-server token --user carol      a token, for the page at http://localhost:6102/ or an app
# Demo users are only where no other machine can reach the server, so there are none here. Publish the ports under their own
# numbers: the page is told by the server where the WebSocket is. 6102 has the metrics too, so it is published to this machine
# alone.
#
# Not built where this was written: no container runs there. The build with TLS to Kafka that it asks for was (scripts/tls --kafka).
#
# io_uring: Docker's default seccomp profile refuses it; the server then says so and runs on epoll. To have it:
#   docker run --security-opt seccomp=unconfined …

FROM rust:1.95.0-bookworm AS build
# The toolchain of the image; rust-toolchain.toml also wants what only development needs.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /source
COPY . .
# gcc, make and libssl-dev, which librdkafka needs for TLS, are in this image. The cache mounts keep crates and objects between
# builds; what leaves them must be copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    RUSTFLAGS="--cfg kafka_tls" cargo build --release --locked -p im-server --features distributed && cp target/release/im-server /im-server

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 6100 im && mkdir /data && chown im /data
COPY --from=build /im-server /usr/local/bin/im-server
# From outside of a container its loopback is out of reach. A file, not the environment, so that yours replaces it.
RUN echo '{"listen": {"tcp": "0.0.0.0:6100", "websocket": "0.0.0.0:6101", "http": "0.0.0.0:6102"}, "store": {"folder": "/data"}, "log": {"format": "json"}}' > /etc/im-server.yaml
USER im
WORKDIR /
# Standalone keeps everything here; the other roles keep nothing.
VOLUME /data
EXPOSE 6100 6101 6102 6103 6104 6105
# It drains on SIGTERM.
ENTRYPOINT ["im-server"]
CMD ["standalone", "--config", "/etc/im-server.yaml"]
