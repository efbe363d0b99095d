"""A secret of AWS Secrets Manager whose text is a JSON object of names and values."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from plugins.secrets.source import Refused, Source, checked, merged, settable

# Bytes: AWS' own limit of one secret.
LIMIT = 65536
PENDING = "SLIPWAY_PENDING"
KEYS = "in AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this machine"
DENIED = {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"}
UNKNOWN_KEY = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "ExpiredTokenException",
    "InvalidSignatureException",
}
BUSY = {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"}
# A pause between attempts grows by itself: these are tried within some ten seconds.
CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 4, "mode": "standard"})


class Aws(Source):
    """``secret_id`` is a name or an ARN; who asks is what boto3 finds. ``endpoint_url`` is for one's own endpoint."""

    kind = "aws"

    def __init__(self, secret_id: str, region: str = "", endpoint_url: str = "") -> None:
        self.secret_id, self.region, self.endpoint_url = secret_id, region, endpoint_url

    @property
    def place(self) -> str:
        return f"{self.secret_id} of AWS Secrets Manager" + (f" in {self.region}" if self.region else "")

    def read(self) -> dict[str, Any]:
        return self._current()[0]

    def set(self, values: Mapping[str, Any]) -> None:
        """As a new version, which becomes AWSCURRENT if the one that was read still is; that becomes AWSPREVIOUS."""
        settable(values)
        old, version = self._current()
        text = json.dumps(merged(old, values, self.place), ensure_ascii=False)
        if len(text.encode()) > LIMIT:
            raise Refused(f"{self.place} would be larger than the {LIMIT} bytes that AWS takes, and is as it was.")
        new = str(uuid.uuid4())
        self._ask("put_secret_value", SecretString=text, ClientRequestToken=new, VersionStages=[PENDING])
        # AWS refuses it when somebody else's version is current by now.
        self._ask(
            "update_secret_version_stage", VersionStage="AWSCURRENT", MoveToVersionId=new, RemoveFromVersionId=version
        )
        self._ask("update_secret_version_stage", VersionStage=PENDING, RemoveFromVersionId=new)

    def readers(self) -> list[str]:
        return [f"whoever IAM lets call secretsmanager:GetSecretValue on {self.secret_id} and decrypt with its KMS key"]

    def editing(self) -> str:
        return f"put a new value into {self.place} (aws secretsmanager put-secret-value, or the console)"

    def closing(self) -> str:
        return f"take secretsmanager:GetSecretValue on {self.secret_id} away from them in IAM"

    def changed(self) -> datetime.datetime | None:
        """When one of its values was changed last (UTC), of which there is one date for all."""
        when = self._ask("describe_secret").get("LastChangedDate")
        return when.astimezone(datetime.UTC) if when else None

    def _current(self) -> tuple[dict[str, Any], str]:
        answer = self._ask("get_secret_value", VersionStage="AWSCURRENT")
        try:
            values = json.loads(answer.get("SecretString") or "")
        except ValueError:
            raise Refused(
                f'{self.place} is not JSON: put an object there, {{"NAME": "value"}} ("Key/value" in the console).'
            ) from None
        return checked(values, self.place), answer["VersionId"]

    def _ask(self, what: str, **words: Any) -> dict[str, Any]:
        try:
            client = boto3.session.Session().client(
                "secretsmanager", region_name=self.region or None, endpoint_url=self.endpoint_url or None, config=CONFIG
            )
            answer: dict[str, Any] = getattr(client, what)(SecretId=self.secret_id, **words)
            return answer
        except (NoCredentialsError, PartialCredentialsError):
            raise Refused(
                f"No credentials of AWS are here to read {self.place} with: they are looked for {KEYS}."
            ) from None
        except NoRegionError:
            raise Refused("No region of AWS is known: set secrets_source.region, or AWS_REGION.") from None
        except (EndpointConnectionError, ConnectTimeoutError, ReadTimeoutError):
            raise Refused(
                f"AWS Secrets Manager does not answer for {self.place}: is secrets_source.region right, and does this"
                " machine get out?"
            ) from None
        except ClientError as error:
            raise self._refusal(error.response.get("Error", {}).get("Code", ""), what) from None
        except (BotoCoreError, ValueError) as error:
            raise Refused(
                f"AWS could not be asked for {self.place} ({type(error).__name__}): look at secrets_source."
            ) from None

    def _refusal(self, code: str, what: str) -> Refused:
        right = "secretsmanager:" + "".join(part.title() for part in what.split("_"))
        if code in DENIED:
            return Refused(
                f"AWS denies {right} on {self.place}: allow it, and kms:Decrypt where its key is one of your own."
            )
        if code in UNKNOWN_KEY:
            return Refused(f"AWS does not take the credentials ({code}): renew them, {KEYS}.")
        if code in BUSY:
            return Refused(
                f"AWS has asked four times to wait ({code}) before it gives {self.place}: run it again in a minute."
            )
        if code == "ResourceNotFoundException":
            return Refused(
                f"{self.place} is not there: correct secrets_source (secret_id, region), or make it, see"
                " docs/ops/secrets.md."
            )
        if what == "update_secret_version_stage" and code == "InvalidParameterException":
            return Refused(
                f"{self.place} was changed by somebody else meanwhile, and is left as it is now: start again."
            )
        return Refused(f"AWS refuses {right} on {self.place} ({code}).")
