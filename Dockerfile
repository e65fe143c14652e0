# The image is one static file: no shell, no package; certificates' roots and time zones are inside the binary.
# `docker build .` builds it from a clone, `docker build --target prebuilt .` from bin/linux/whisper, which `make image-offline` makes: then no
# other image is needed.
FROM scratch AS base
USER 65532:65532
# Sockets; operations.
EXPOSE 8080 8081
# Every role answers on its operations port. A one-shot command (topics apply, migrate) ends before the
# first probe.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["/whisper", "health", "--probe", "http://127.0.0.1:8081/readyz"]
ENTRYPOINT ["/whisper"]

FROM base AS prebuilt
COPY bin/linux/whisper /whisper

FROM golang:1.26 AS build
ARG VERSION=dev
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN make binary VERSION="$VERSION" GOOS=linux GOARCH="$TARGETARCH" OUT=/out/whisper

FROM base
COPY --from=build /out/whisper /whisper
