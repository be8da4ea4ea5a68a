# The tag names the Python to the patch and the Debian below it; no newer one comes without a change here.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /srv
COPY requirements.txt .
# Every file by its hash, nothing that the lock does not name, and wheels only: no package's own code runs here.
RUN python -m venv --without-pip /venv \
 && pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps --require-hashes --only-binary :all: -r requirements.txt

FROM ${BASE}
RUN useradd --system --uid 10001 --home-dir /srv --shell /usr/sbin/nologin service \
 && install -d -o service -g service -m 0700 /data
WORKDIR /srv
# Owned by root: the service cannot change its own code. No pip in /venv, no tests, no tools.
COPY --from=build /venv /venv
COPY app app
COPY gunicorn.conf.py .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 INSTANCE_DIR=/data
# It writes to INSTANCE_DIR and /tmp only, so that the root may be read-only:
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges -v orders:/data …
VOLUME /data
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '8080') + '/healthz', timeout=2)"]
# Exec form: gunicorn itself gets the SIGTERM.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "app.wsgi:app"]
