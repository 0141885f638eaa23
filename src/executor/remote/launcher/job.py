# bpp-flow keepers
import sys
"" in sys.path and sys.path.remove("")
if sys.version_info < (3, 9):
    sys.exit("Python 3.9 or later is needed; %s is %s" % (sys.executable, sys.version.split()[0]))
import marshal, zlib
modules, settings = marshal.loads(zlib.decompress(bytes.fromhex("@payload@")))
settings["job"], until = sys.argv[1:]
settings["until"] = float(until) if until else None
del sys.argv[1:]
for name, text in marshal.loads(modules[5:]):
    module = sys.modules[name] = type(sys)(name)
    module.__path__, module.__package__ = [], "bpp_flow"
    exec(compile(text, "<bpp-flow>", "exec"), module.__dict__)
module.main_job(settings)
