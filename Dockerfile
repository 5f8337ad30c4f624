# One image for all three processes: `gateway run` starts them together, `python -m worklist|pacs|relay` one of them.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/gateway/.venv \
 && /opt/gateway/.venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY gateway gateway
COPY worklist worklist
COPY pacs pacs
COPY relay relay
COPY simulator simulator
COPY operations operations
RUN /opt/gateway/.venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
COPY --from=build /opt/gateway/.venv /opt/gateway/.venv
RUN useradd --system --home-dir /var/lib/gateway --create-home gateway
ENV PATH=/opt/gateway/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GATEWAY_DATA_DIR=/var/lib/gateway
USER gateway
WORKDIR /var/lib/gateway
VOLUME /var/lib/gateway
EXPOSE 4243 4244 8042
# Proof by traffic, not by a listening port; `gateway check` says which hop is broken.
HEALTHCHECK --interval=60s --timeout=30s --start-period=30s CMD ["gateway", "check", "--local"]
CMD ["gateway", "run"]
