"""Makes the messages of this folder: python3 make.py, with zeep and xmlsec from PyPI.

They are what other libraries sign, to be verified by ours.  The key is thrown away.
"""
import datetime
import pathlib
import subprocess
import tempfile

import xmlsec
from lxml import etree
from zeep.wsse import signature, utils

HERE = pathlib.Path(__file__).parent
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
BODY = """<SOAP-ENV:Envelope xmlns:SOAP-ENV="%s" xmlns:unused="urn:unused">
  <SOAP-ENV:Header/>
  <SOAP-ENV:Body>
    <DescribeInstances xmlns="http://ec2.amazonaws.com/doc/2007-03-01/">
      <instancesSet><item><instanceId>i-12345678 &gt; "\u00e9" &amp;</instanceId></item></instancesSet>
    </DescribeInstances>
  </SOAP-ENV:Body>
</SOAP-ENV:Envelope>""" % SOAP


def envelope():
    root = etree.fromstring(BODY.encode())
    security = utils.get_security_header(root)
    stamp = etree.SubElement(security, "{%s}Timestamp" % utils.ns.WSU, nsmap={"wsu": utils.ns.WSU})
    created = datetime.datetime(2026, 11, 21, 12, 0, 0)
    for name, time in (("Created", created), ("Expires", created + datetime.timedelta(minutes=5))):
        etree.SubElement(stamp, "{%s}%s" % (utils.ns.WSU, name)).text = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return root


def main():
    with tempfile.TemporaryDirectory() as scratch:
        key, cert = scratch + "/key.pem", HERE / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha1", "-days", "3650", "-subj", "/CN=wss",
                        "-keyout", key, "-out", str(cert)], check=True, stderr=subprocess.DEVNULL)
        methods = {
            "sha1": (xmlsec.Transform.RSA_SHA1, xmlsec.Transform.SHA1),
            "sha256": (xmlsec.Transform.RSA_SHA256, xmlsec.Transform.SHA256),
        }
        for name, (signing, digest) in methods.items():
            root = envelope()
            loaded = signature._make_sign_key(pathlib.Path(key).read_bytes(), cert.read_bytes(), None)
            signature._sign_envelope_with_key_binary(root, loaded, signing, digest)
            (HERE / f"zeep-{name}.xml").write_bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))
        # The same in one line, with lists of namespaces, as WSS4J writes them.
        root = etree.fromstring(BODY.encode(), etree.XMLParser(remove_blank_text=True))
        security = utils.get_security_header(root)
        full = envelope()
        security.append(full.find(".//{%s}Timestamp" % utils.ns.WSU))
        loaded = signature._make_sign_key(pathlib.Path(key).read_bytes(), cert.read_bytes(), None)
        template = xmlsec.template.create(root, xmlsec.Transform.EXCL_C14N, xmlsec.Transform.RSA_SHA1)
        method = template.find("{%s}SignedInfo/{%s}CanonicalizationMethod" % (utils.ns.DS, utils.ns.DS))
        exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
        etree.SubElement(method, "{%s}InclusiveNamespaces" % exclusive, nsmap={"ec": exclusive}).set("PrefixList", "SOAP-ENV unused")
        security.insert(0, template)
        token = etree.Element("{%s}BinarySecurityToken" % utils.ns.WSSE, {
            "EncodingType": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-soap-message-security-1.0#Base64Binary",
            "ValueType": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-x509-token-profile-1.0#X509v3",
            "{%s}Id" % utils.ns.WSU: "X509-1"}, nsmap={"wsu": utils.ns.WSU})
        token.text = "".join(cert.read_text().split("\n")[1:-2])
        security.insert(0, token)
        info = etree.SubElement(template, "{%s}KeyInfo" % utils.ns.DS)
        reference = etree.SubElement(info, "{%s}SecurityTokenReference" % utils.ns.WSSE)
        etree.SubElement(reference, "{%s}Reference" % utils.ns.WSSE, URI="#X509-1")
        context = xmlsec.SignatureContext()
        context.key = loaded
        parts = {"ts-1": security.find("{%s}Timestamp" % utils.ns.WSU), "id-1": root.find("{%s}Body" % SOAP)}
        for name, element in parts.items():
            element.set("{%s}Id" % utils.ns.WSU, name)
            context.register_id(element, "Id", utils.ns.WSU)
            added = xmlsec.template.add_reference(template, xmlsec.Transform.SHA1, uri="#" + name)
            transform = xmlsec.template.add_transform(added, xmlsec.Transform.EXCL_C14N)
            etree.SubElement(transform, "{%s}InclusiveNamespaces" % exclusive, nsmap={"ec": exclusive}).set("PrefixList", "SOAP-ENV unused #default")
        context.sign(template)
        (HERE / "lists.xml").write_bytes(etree.tostring(root))


main()
