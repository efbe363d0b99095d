"""The environment decides: each case starts a Python of its own."""

import json
import os
import ssl
import subprocess
import sys
from unittest import TestCase

from django.conf import settings

from config.environment import features, redis_client

CA = "/etc/app/ca.pem"


def read(expression: str, **environment: str):
    program = (
        "import json, django; django.setup();"
        "from django.conf import settings as s;"
        f"print(json.dumps({expression}, default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=settings.BASE_DIR,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DJANGO_SECRET_KEY": "x",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


class RedisTest(TestCase):
    def test_tls_is_verified_in_full_whatever_the_url_asks_for(self):
        for asked in ("required", "none"):
            url, tls = redis_client(f"rediss://app:p%40ss@data1:6379/0?ssl_cert_reqs={asked}&ssl_ca_certs={CA}")
            self.assertEqual(url, "rediss://app:p%40ss@data1:6379/0")
            self.assertEqual(
                tls,
                {
                    "ssl_cert_reqs": ssl.CERT_REQUIRED,
                    "ssl_check_hostname": True,
                    "ssl_ca_certs": CA,
                },
            )

    def test_without_tls_nothing_is_added(self):
        self.assertEqual(redis_client("redis://127.0.0.1/0"), ("redis://127.0.0.1/0", {}))
        self.assertEqual(redis_client(""), ("", {}))

    def test_cache_and_broker_get_the_same_verification(self):
        url = f"rediss://app:pw@data1:6379/0?ssl_ca_certs={CA}"
        cache, broker = read("[s.CACHES['default']['OPTIONS'], s.CELERY_BROKER_USE_SSL]", REDIS_URL=url)
        self.assertEqual(broker["ssl_ca_certs"], CA)
        self.assertTrue(broker["ssl_check_hostname"])
        self.assertEqual(broker, {key: cache[key] for key in broker})


class EnvironmentTest(TestCase):
    def test_database_url_is_taken_with_its_verification(self):
        database = read(
            "s.DATABASES['default']",
            DATABASE_URL=f"postgres://app:p%40ss@data1/app?sslmode=verify-full&sslrootcert={CA}",
        )
        self.assertEqual(database["PASSWORD"], "p@ss")
        self.assertEqual(database["OPTIONS"]["sslmode"], "verify-full")
        self.assertEqual(database["OPTIONS"]["sslrootcert"], CA)
        self.assertEqual(database["OPTIONS"]["connect_timeout"], 2)

    def test_uploads_go_where_the_environment_says(self):
        storage = "s.STORAGES['default']"
        self.assertIn("FileSystemStorage", read(storage)["BACKEND"])
        bucket = read(storage, MEDIA_BACKEND="s3", MEDIA_S3_BUCKET="covers")
        self.assertEqual(bucket["BACKEND"], "storages.backends.s3.S3Storage")
        self.assertEqual(bucket["OPTIONS"]["bucket_name"], "covers")

    def test_a_live_process_without_a_key_does_not_start(self):
        with self.assertRaises(subprocess.CalledProcessError) as failed:
            read("__import__('config.wsgi') and 1", DJANGO_SECRET_KEY="")
        self.assertIn("SECRET_KEY", failed.exception.stderr)

    def test_nothing_is_on_by_default(self):
        self.assertEqual(read("[s.DEBUG, s.ALLOWED_HOSTS, s.FEATURES]"), [False, [], {}])

    def test_features(self):
        self.assertEqual(
            features({"FEATURE_SLOW": "1", "FEATURE_NEW_CART": "off", "OTHER": "1"}),
            {"slow": True, "new_cart": False},
        )

    def test_a_task_ends_before_it_is_handed_out_again(self):
        self.assertLess(
            settings.CELERY_TASK_TIME_LIMIT,
            settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"],
        )
