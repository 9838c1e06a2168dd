"""What both SOAP clients share: zeep, generated from a WSDL that the cloud serves, and messages that it signs.

Beside what common.py lists:

CUMULET_TEST_CERTIFICATE, CUMULET_TEST_PRIVATE_KEY   the user's, as files

Nothing is set in zeep but the signature: address, operations and types are the WSDL's, and answers that do not
have its form are refused, by zeep as it is and by the schema itself.
"""

import datetime

import common
from common import holds

common.isolate()

import xmlsec  # noqa: E402
import zeep  # noqa: E402
from lxml import etree  # noqa: E402
from zeep.wsse import utils  # noqa: E402
from zeep.wsse.signature import BinarySignature  # noqa: E402

CERTIFICATE = common.setting("CERTIFICATE")
PRIVATE_KEY = common.setting("PRIVATE_KEY")
SCHEMA = "{http://www.w3.org/2001/XMLSchema}schema"
BODY = "{http://schemas.xmlsoap.org/soap/envelope/}Body"
FAULT = "{http://schemas.xmlsoap.org/soap/envelope/}Fault"


class Signed(BinarySignature):
    """Signs the body and, as EC2 wants it, a fresh timestamp."""

    def __init__(self, sha256=False):
        methods = (xmlsec.Transform.RSA_SHA256, xmlsec.Transform.SHA256) if sha256 else (None, None)
        super().__init__(PRIVATE_KEY, CERTIFICATE, signature_method=methods[0], digest_method=methods[1])

    def apply(self, envelope, headers):
        security = utils.get_security_header(envelope)
        stamp = etree.SubElement(security, utils.ns.WSU.join(["{", "}Timestamp"]))
        now = datetime.datetime.now(datetime.timezone.utc)
        for name, time in (("Created", now), ("Expires", now + datetime.timedelta(minutes=5))):
            etree.SubElement(stamp, "{%s}%s" % (utils.ns.WSU, name)).text = time.strftime("%Y-%m-%dT%H:%M:%SZ")
        return super().apply(envelope, headers)

    def verify(self, envelope):
        """EC2 signed no answers."""
        return envelope


class Checked(zeep.Plugin):
    """Compares every answer with the schema of the WSDL."""

    def __init__(self):
        self.schema = None
        self.seen = []

    def ingress(self, envelope, http_headers, operation):
        answer = envelope.find(BODY)[0]
        if answer.tag != FAULT:
            if not self.schema.validate(etree.fromstring(etree.tostring(answer))):
                log = self.schema.error_log
                raise common.Mismatch("the answer is not of the schema: %s: %s" % (log, etree.tostring(answer)))
            self.seen.append(operation.name)
        return envelope, http_headers


def address(version, name="AmazonEC2.wsdl"):
    return "%s/doc/%s/%s" % (common.ENDPOINT, version, name)


def connect(version, sha256=False):
    """A client that was generated from the WSDL of a version; its answers are checked by `checked`."""
    checked = Checked()
    client = zeep.Client(address(version), wsse=Signed(sha256), plugins=[checked])
    document = etree.fromstring(client.transport.load(address(version)))
    # Out of the document and into one of its own, with the prefixes that it uses.
    checked.schema = etree.XMLSchema(etree.fromstring(etree.tostring(document.find(".//" + SCHEMA))))
    client.checked = checked
    return client


def chosen(client, version):
    """An element of a choice that has nothing in it; zeep takes what counts as false for one that is not chosen."""
    empty = type(client.get_type("{http://ec2.amazonaws.com/doc/%s/}EmptyElementType" % version)())
    return type("Chosen", (empty,), {"__bool__": lambda self: True})()


def code_of(error):
    """Faults have `Client.` or `Server.` before the code."""
    return error.code.split(".", 1)[1] if isinstance(error, zeep.exceptions.Fault) else None


def part(answer, name):
    """An element of an answer; in place of an answer with one element zeep gives what that has."""
    return getattr(answer, name) if hasattr(answer, name) else answer


def items(structure):
    """The items of a list, which zeep leaves out when there are none."""
    return structure if isinstance(structure, list) else getattr(structure, "item", None) or []


def only(structure):
    found = items(structure)
    holds("there is one item in %s" % common.short(structure), len(found) == 1)
    return found[0]
