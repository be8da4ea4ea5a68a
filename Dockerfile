FROM python:3.11-slim AS build
WORKDIR /srv
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /srv service && mkdir -p /data && chown service /data
WORKDIR /srv
COPY --from=build /venv /venv
COPY app app
COPY gunicorn.conf.py .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 INSTANCE_DIR=/data
USER service
EXPOSE 8080
# Exec form: gunicorn itself gets the SIGTERM.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "app.wsgi:app"]
