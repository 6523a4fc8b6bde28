"""What the known data sets are known by: their checksums. Whose data these are, and whether they were asked for."""

import hashlib
from collections.abc import Mapping

import numpy as np

from pipeline.data.dataset import DataError
from pipeline.data.image_files import FILES, Part

# MD5 of the published gzip files, in the order of FILES.
MD5 = {
    "mnist": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion_mnist": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
}
# SHA-256 of the images and labels themselves, for files that were unpacked or packed anew; empty: not known.
SHA256 = {
    "mnist": (
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    "fashion_mnist": (
        "",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
}
Identity = tuple[str, str]


def identity(part: Part) -> Identity | None:
    """The known data set and file whose content this is, told by its checksums."""
    content = np.ascontiguousarray(part.values).data
    return _owner(MD5, part.md5) or _owner(SHA256, hashlib.sha256(content).hexdigest())


def _owner(table: Mapping[str, tuple[str, ...]], checksum: str) -> Identity | None:
    owners = [(name, FILES[sums.index(checksum)]) for name, sums in table.items() if checksum and checksum in sums]
    return owners[0] if owners else None


def check_name(dataset: str, data_name: str, parts: list[Part], where: str) -> None:
    """Make sure that the four parts are what they are to be recorded as.

    Args:
        dataset: a known data set.
        data_name: a name of their own that the user gives them, or nothing.
        parts: in the order of FILES.
        where: the folder or archive, for the message.

    Raises:
        DataError: saying whose data they are and what to do.
    """
    found = [identity(part) for part in parts]
    whole = next((name for name in MD5 if found == [(name, file) for file in FILES]), "")
    if data_name:
        if whole:
            raise DataError(
                f"data_name {data_name}: {where} holds {whole} itself, by its checksums; "
                f"leave data_name out and give --dataset {whole}"
            )
        return
    if whole == dataset:
        return
    if whole:
        raise DataError(
            f"{where} holds {whole}, by its checksums, not {dataset}; give --dataset {whole}, "
            f"or the folder of {dataset} with --data_dir"
        )
    raise DataError(_unknown(dataset, parts, found))


def _unknown(dataset: str, parts: list[Part], found: list[Identity | None]) -> str:
    """What to say of parts of which one at least is not the known one."""
    wrong = next(index for index in range(len(FILES)) if found[index] != (dataset, FILES[index]))
    whose = found[wrong]
    words = f"{whose[0]}'s {whose[1]}" if whose else "data of which no known checksum is true"
    advice = "give data of your own a name of their own, --data_name my_digits"
    if not whose and "" in SHA256.get(dataset, ("",)) and not parts[wrong].md5:
        advice += f", or bring {dataset} as the .gz files that were published: only those can be told"
    elif not whose:
        advice += ", or fetch the file again"
    return f"{parts[wrong].where}: found {words}, expected {dataset}'s {FILES[wrong]}; {advice}"
