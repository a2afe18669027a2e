# The page and the HTTP interface on a CPU.
#
#   docker build -t rcod .
#   docker run --rm -p 127.0.0.1:7860:7860 -e RCOD_TOKEN=... rcod
#
# On x86-64 the ordinary PyTorch package brings several GB of CUDA libraries. For a small image,
# give the address of PyTorch's CPU packages (the site lists it): --build-arg TORCH_INDEX=...
#
# tools/check_image.py runs these steps without Docker.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
WORKDIR /build
RUN python -m venv /opt/rcod
COPY constraints.txt ./
RUN torch="$(grep '^torch==' constraints.txt)" \
    && /opt/rcod/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN /opt/rcod/bin/pip install --no-cache-dir -c constraints.txt '.[web]'

FROM python:3.11-slim
COPY --from=build /opt/rcod /opt/rcod
RUN useradd --system --no-create-home --shell /usr/sbin/nologin rcod
USER rcod
ENV PATH=/opt/rcod/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["rcod", "serve", "--host", "0.0.0.0", "--port", "7860"]
