"""The first lines of a program that can import transformers but none of this project's packages."""

# Works however the project is installed: the blocker comes before all other finders.
ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_blip2idc", "dataset_syned", "metric_idc"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
try:
    import modeling_blip2idc
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package can be imported")
"""
