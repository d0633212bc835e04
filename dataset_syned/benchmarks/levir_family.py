"""Sets of aerial views that took over LEVIR-CC's form: LEVIR-MCI, LEVIR-CDC, WHU-CDC, SECOND-CC and Dubai.

    python -m dataset_syned prepare whu_cdc        # raw files in data/whu_cdc, see BY_HAND

levir_cc.py shows a raw annotation. LEVIR-MCI and LEVIR-CDC add masks to the pairs of LEVIR-CC; masks and semantic maps
are not read. SECOND-CC's form was read in its authors' code; those of LEVIR-CDC, WHU-CDC and Dubai in code of people
who use them. `check` names the first field that differs.
"""

from collections.abc import Iterator
from pathlib import Path

from ..annotations import Located, read_each
from ..pair_builder import Mirror
from ..pairs import BrokenEntry, RawPair
from .levir_cc import LevirCc, read_images, read_pair

RS_CDC = "https://huggingface.co/datasets/hygge10111/RS-CDC"
CDC_CITATION = """@article{sun2025mask,
  title={Mask Approximation Net: A Novel Diffusion Model Approach for Remote Sensing Change Captioning},
  author={Sun, Dongwei and Yao, Jing and Xue, Wu and Zhou, Changsheng and Ghamisi, Pedram and Cao, Xiangyong},
  journal={IEEE Transactions on Geoscience and Remote Sensing},
  year={2025}
}"""


class LevirMci(LevirCc):
    DESCRIPTION = "LEVIR-MCI: the pairs of LEVIR-CC with masks of changed roads and buildings, which are not read."
    LICENSE = "MIT, for academic purposes only"
    HOMEPAGE = "https://github.com/Chen-Yang-Liu/Change-Agent"
    CITATION = """@article{liu2024change,
  title={Change-Agent: Towards Interactive Comprehensive Remote Sensing Change Interpretation and Analysis},
  author={Liu, Chenyang and Chen, Keyan and Zhang, Haotian and Qi, Zipeng and Zou, Zhengxia and Shi, Zhenwei},
  journal={IEEE Transactions on Geoscience and Remote Sensing},
  year={2024}
}"""
    MIRRORS = (Mirror("lcybuaa/LEVIR-MCI", "main", ("*.zip",)),)
    BY_HAND = (
        "Download the zip archive of https://huggingface.co/datasets/lcybuaa/LEVIR-MCI and unpack it so that "
        "LevirCCcaptions.json and images/{train,val,test}/{A,B}/ are in that folder."
    )
    PLACES = ("", "images", "LEVIR-MCI-dataset", "LEVIR-MCI-dataset/images")


class LevirCdc(LevirCc):
    DESCRIPTION = "LEVIR-CDC: the pairs of LEVIR-CC with masks of changed buildings, which are not read."
    LICENSE = "none stated where it was looked for"
    HOMEPAGE = RS_CDC
    CITATION = CDC_CITATION
    MIRRORS = ()  # the names of its archives were not seen
    BY_HAND = (
        f"Unpack the archive of LEVIR-CDC from {RS_CDC} so that LevirCCcaptions.json and images/{{train,val,test}}/"
        "{A,B}/ are in that folder."
    )
    PLACES = ("", "Levir_CDC_dataset", "Levir_CDC_dataset/Levir_CDC_dataset")


class WhuCdc(LevirCc):
    """WHU-CDC's pairs. Published are 7,434 pairs in all, not how many each split has."""

    DESCRIPTION = "WHU-CDC: aerial views of buildings at two times, at 7.5 cm per pixel, five sentences each."
    LICENSE = "none stated where it was looked for"
    HOMEPAGE = RS_CDC
    CITATION = CDC_CITATION
    MIRRORS = ()  # the names of its archives were not seen
    BY_HAND = (
        f"Unpack the archive of WHU-CDC from {RS_CDC} so that whuCCcaptions.json and images/{{train,val,test}}/"
        "{A,B}/ are in that folder."
    )
    EXPECTED = {}
    ANNOTATIONS = "whuCCcaptions.json"
    PLACES = ("", "whu_CDC_dataset", "whu_CDC_dataset/whu_CDC_dataset")


class SecondCc(LevirCc):
    """SECOND-CC's pairs. Published are 6,041 pairs in all, not how many each split has."""

    DESCRIPTION = "SECOND-CC: aerial views of cities at two times, with blur and other light, five sentences each."
    LICENSE = "none stated where it was looked for (see the record on Zenodo)"
    HOMEPAGE = "https://github.com/ChangeCapsInRS/SecondCC"
    CITATION = """@article{karaca2025robust,
  title={Robust Change Captioning in Remote Sensing: SECOND-CC Dataset and MModalCC Framework},
  author={Karaca, Ali Can and Ozelbas, Enes and Berber, Saadettin and Karimli, Orkhan and Yildirim, Turabi and
          Amasyali, M. Fatih},
  journal={IEEE Journal of Selected Topics in Applied Earth Observations and Remote Sensing},
  year={2025},
  doi={10.1109/JSTARS.2025.3600613}
}"""
    MIRRORS = ()
    BY_HAND = (
        "Download the data set from https://doi.org/10.5281/zenodo.16937571 and unpack it so that SECOND-CC-AUG.json "
        "and {train,val,test}/rgb/{A,B}/ are in that folder."
    )
    EXPECTED = {}
    ANNOTATIONS = "SECOND-CC-AUG.json"
    PLACES = ("", "SECOND-CC-AUG", "SECOND_CC_dataset")
    BEFORE, AFTER = "rgb/A", "rgb/B"


class DubaiCc(LevirCc):
    """Dubai's pairs: one file of annotations per split, and no folders of splits for the images."""

    DESCRIPTION = "Dubai CC: satellite views of Dubai in 2000 and 2010, of 50 x 50 pixels, five sentences each."
    LICENSE = "none stated where it was looked for"
    HOMEPAGE = "https://disi.unitn.it/~melgani/datasets.html"
    CITATION = """@article{hoxha2022change,
  title={Change Captioning: A New Paradigm for Multitemporal Remote Sensing Image Analysis},
  author={Hoxha, Genc and Chouaf, Seloua and Melgani, Farid and Smara, Youcef},
  journal={IEEE Transactions on Geoscience and Remote Sensing},
  volume={60},
  year={2022}
}"""
    MIRRORS = ()
    BY_HAND = (
        "Unpack DubaiCC.rar, linked on https://disi.unitn.it/~melgani/datasets.html, so that "
        "description_jsontr_te_val/{Train,Validation,Test}_*.json and imgs_tiles/RGB/{500_2000,500_2010}/ are in that "
        "folder."
    )
    EXPECTED = {}  # 500 pairs in all; how many each split has was not read
    SUBFOLDER = "datasetDubaiCCPublic"
    FILES = {"train": "Train", "validation": "Validation", "test": "Test"}  # how their names begin

    def split_file(self, split: str) -> Path | None:
        """Return the file of annotations of a split; None if it is missing."""
        return min((self.folder / "description_jsontr_te_val").glob(f"{self.FILES[split]}_*.json"), default=None)

    def listed(self) -> dict[str, list[Located | BrokenEntry]]:
        paths = {split: path for split in self.FILES if (path := self.split_file(split))}
        if not paths:
            raise self.missing("description_jsontr_te_val/Train_*.json")
        return {split: list(read_images(path)) for split, path in paths.items()}

    def entries(self, split: str) -> Iterator[RawPair | BrokenEntry]:
        images = self.folder / "imgs_tiles" / "RGB"
        folders = images / "500_2000", images / "500_2010"
        return read_each(self.listed().get(split, []), lambda entry: read_pair(entry, folders))
