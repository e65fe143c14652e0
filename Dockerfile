# The image is one static file: `make image` builds bin/whisper and then this. There is no shell in it,
# no package and no registry to build from; certificates' roots and time zones are inside the binary.
FROM scratch
COPY bin/whisper /whisper
USER 65532:65532
# Sockets; operations.
EXPOSE 8080 8081
# Every role answers on its operations port. A one-shot command (topics apply, migrate) ends before the
# first probe.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["/whisper", "health", "--probe", "http://127.0.0.1:8081/readyz"]
ENTRYPOINT ["/whisper"]
