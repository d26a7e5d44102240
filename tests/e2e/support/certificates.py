"""Certificates made at run time, with the openssl command: authorities, and leaves that are right or wrong in one thing."""

import shutil
import subprocess

OPENSSL = shutil.which("openssl")


class Authority:
    """Signs leaves. Files live in `folder`."""

    def __init__(self, folder, name="authority"):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.file, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        self._openssl(
            *("req", "-x509", "-subj", f"/CN={name}", "-days", "2", *self._new_key(self._key), "-out", self.file),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        )

    @staticmethod
    def _new_key(file):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file)

    @staticmethod
    def _openssl(*words):
        run = subprocess.run([OPENSSL, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    def leaf(self, name, names="DNS:localhost,IP:127.0.0.1", days=2):
        """(certificate file, key file) for `names`; days < 0: it has expired."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n", encoding="utf-8")
        self._openssl("req", "-new", "-subj", f"/CN={name}", *self._new_key(key), "-out", request)
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", days, "-extfile", extensions, "-out", certificate),
        )
        key.chmod(0o600)
        return certificate, key
